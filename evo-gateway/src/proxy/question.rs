//! What a provider is asked: the caller's own words, or a translation of them.

use bytes::Bytes;
use http::{HeaderValue, Request, Uri};

use super::{
    Refused,
    attempt::Call,
    back::Back,
    judge::{Failed, Kind},
    tasks::refused,
};
use crate::{
    convert::{self, Wanted},
    provider::access::Access,
    upstream::{Lenient, SendBody, headers},
};

impl Call<'_> {
    /// The body for the provider, and how the answer comes back if it is translated. `instead` is asked
    /// in the place of what the caller sent; `without_thinking` where the model can't be told how much.
    pub(super) fn body(
        &self,
        instead: Option<Bytes>,
        without_thinking: bool,
    ) -> Result<(SendBody, Option<Back>), Failed> {
        let (ask, asked, model) = (&self.engine.ask, &self.engine.asked, &self.target.model);
        let body = instead.as_ref().unwrap_or(&ask.body);
        if self.converts() {
            let wanted = Wanted {
                model,
                stream: asked.stream,
                lenient: ask.lenient,
                without_thinking,
                context: self.engine.context(),
            };
            let converted = convert::request(ask.task(), ask.front, self.dialect(), body, wanted);
            let convert::Converted { body, dropped, asks_to_think, context } =
                converted.map_err(refused)?;
            return Ok((Bytes::from(body).into(), Some(Back { dropped, asks_to_think, context })));
        }
        if let Some(body) = convert::without_foreign_seals(ask.front, body, model) {
            return Ok((Bytes::from(body).into(), None));
        }
        if asked.model == *model {
            return Ok((body.clone().into(), None));
        }
        if asked.model_at.is_empty() {
            let renamed = ask.task().renamed(ask.front, body, model).map(Bytes::from);
            return Ok((renamed.unwrap_or_else(|| body.clone()).into(), None));
        }
        let model_at = if instead.is_some() {
            // It was written anew, so that it stands elsewhere.
            let peek = crate::peek::peek(body, &ask.aim).map_err(|fault| {
                Failed::own(Kind::Caller, Refused::new(400, "invalid_request", fault.message))
            })?;
            peek.model_at
        } else {
            asked.model_at.clone()
        };
        let model = serde_json::to_vec(model).expect("a text can be written as JSON");
        Ok((SendBody::spliced(body, model_at, &model), None))
    }

    /// The request with this body and this key.
    pub(super) fn request(
        &self,
        body: SendBody,
        key: Option<&HeaderValue>,
        access: Option<&Access>,
    ) -> Result<Request<SendBody>, Failed> {
        let caller = (!self.converts()).then_some(&self.engine.ask.headers);
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri(access).ok_or_else(|| self.cannot())?;
        let provider = &self.target.provider;
        if self.engine.ask.lenient {
            request.extensions_mut().insert(Lenient);
        }
        *request.headers_mut() =
            headers::to_provider(provider, self.address.dialect, caller, key, access);
        Ok(request)
    }

    /// Where to ask, with the caller's query if the protocol is the same.
    fn uri(&self, access: Option<&Access>) -> Option<Uri> {
        let address = access.and_then(|access| access.address.as_ref()).unwrap_or(self.address);
        let (ask, stream) = (&self.engine.ask, self.engine.asked.stream);
        let query = (!self.converts()).then(|| ask.query.as_deref().unwrap_or_default());
        address.asking(ask.task(), &self.target.model, stream, query)
    }
}
