//! What is asked besides answers, where a provider can't be asked it.

use http::{HeaderValue, Response, header};

use super::{
    ESTIMATED, JSON, Refused,
    attempt::Call,
    back::{Back, DROPPED},
    engine::{Ready, Reply},
    judge::{Failed, Kind},
};
use crate::{
    convert::{self, Context, ConvertError, Task},
    usage::meter::Meter,
};

impl Call<'_> {
    /// What becomes of a request that this provider can't be asked: tokens are estimated here.
    pub(super) fn without_asking(&self) -> Result<Ready, Failed> {
        let ask = &self.engine.ask;
        if ask.task() != Task::Count {
            return Err(self.cannot());
        }
        let (tokens, dropped) =
            convert::estimate(ask.front, &ask.body, ask.lenient).map_err(refused)?;
        let mut head = Response::new(());
        let headers = head.headers_mut();
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(ESTIMATED, HeaderValue::from_static("true"));
        let back = Back { dropped, asks_to_think: false, context: Context::default() };
        if let Some(dropped) = back.dropped(Vec::new()) {
            headers.insert(DROPPED, dropped);
        }
        let reply = Reply::Whole(convert::counted(ask.front, tokens).into());
        Ok(Ready { head, reply, meter: Meter::default(), call: None })
    }

    /// The provider has no such thing; another one may.
    pub(super) fn cannot(&self) -> Failed {
        let (name, model) = (&self.target.provider.name, &self.target.model);
        let kind = crate::provider::type_name(self.target.provider.kind);
        let message = format!(
            "The provider `{name}` ({kind}) has no embeddings, so that {model:?} can't be asked for them; name a \
             model of a provider of the type open_ai_compatible, google or github_copilot."
        );
        let field = Some("model".to_owned());
        let refused = Refused { field, ..Refused::new(400, "embeddings_not_supported", message) };
        Failed::own(Kind::Unable, refused)
    }
}

/// What the caller asks can't be carried over.
pub(super) fn refused(fault: ConvertError) -> Failed {
    let message = format!("`{}`: {}", fault.field, fault.message);
    let field = Some(fault.field).filter(|field| field != "body");
    let refused = Refused { field, ..Refused::new(400, "invalid_request", message) };
    Failed::own(Kind::Caller, refused)
}
