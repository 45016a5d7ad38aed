//! What all fakes have: a server, models of a test's own, and how an answer goes out.

use std::{
    collections::HashMap,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

use super::{
    answer::{self, Answer, Script},
    fault,
    prompt::Prompt,
    server::{Api, Reply, Request, Sent, Server},
    stream,
};

/// A fake provider with this API; it ends when it is dropped.
#[derive(Debug)]
pub struct Fake<A> {
    server: Server,
    models: Models,
    api: PhantomData<A>,
}

impl<A> Fake<A> {
    /// Starts one on a free port of loopback. It has a thread of its own, so that a test may block.
    pub(super) fn serve(name: &'static str, api: impl FnOnce(Models) -> A) -> Self
    where
        A: Api,
    {
        let models = Models::default();
        let server = Server::start(name, api(models.clone()));
        Self { server, models, api: PhantomData }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn origin(&self) -> String {
        self.server.origin()
    }

    /// From now on there is a model of this name that always answers with this text.
    pub fn says(&self, model: &str, text: &str) {
        self.models.locked().insert(model.to_owned(), Script::Says(text.to_owned()));
    }

    /// From now on there is a model of this name that says what `reply` makes of the number of the
    /// question, from 0, and of all that it is shown.
    pub fn replies(
        &self,
        model: &str,
        reply: impl Fn(usize, &str) -> String + Send + Sync + 'static,
    ) {
        let script = Script::Replies(Arc::new(reply), Arc::default());
        self.models.locked().insert(model.to_owned(), script);
    }

    /// From now on there is a model of this name that says this and calls a tool with these
    /// arguments; shown the result, it repeats it.
    pub fn calls(&self, model: &str, says: &str, tool: &str, arguments: &Value) {
        let script = Script::Calls(tool.to_owned(), arguments.to_string(), says.to_owned());
        self.models.locked().insert(model.to_owned(), script);
    }

    /// Every request so far, in the order they came.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// The requests that the client gave up before the answer was out.
    pub fn cancelled(&self) -> Vec<Request> {
        self.server.cancelled()
    }
}

/// Models of a test's own by their names, and what they do.
#[derive(Debug, Clone, Default)]
pub(super) struct Models(Arc<Mutex<HashMap<String, Script>>>);

impl Models {
    fn locked(&self) -> MutexGuard<'_, HashMap<String, Script>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a model says; nothing when there is no such model.
    pub(super) fn answer(&self, prompt: &Prompt) -> Option<Answer> {
        answer::answer(prompt, &self.locked())
    }
}

/// How a provider's answers go out.
pub(super) struct Style {
    pub(super) json: &'static str,
    pub(super) stream: &'static str,
    /// How many of a stream's events are its end mark.
    pub(super) end_marks: usize,
}

impl Style {
    /// A model's answer, whole or as events; with the events comes the error that may stand among them.
    pub(super) fn send(
        &self,
        prompt: &Prompt,
        mut headers: Vec<(&'static str, String)>,
        whole: impl FnOnce() -> String,
        events: impl FnOnce() -> (Vec<String>, String),
    ) -> Reply {
        let (steps, content_type) = if prompt.stream {
            let (events, error) = events();
            (stream::events(&prompt.model, events, self.end_marks, error), self.stream)
        } else {
            let (steps, length) = stream::whole(&prompt.model, whole());
            headers.push(("content-length", length.to_string()));
            (steps, self.json)
        };
        headers.push(("content-type", content_type.to_owned()));
        let delay = fault::delay(&prompt.model, prompt.stream);
        Reply::Answer(Sent { status: 200, headers, delay, steps })
    }
}

/// How many of these requests named this model in their body.
pub(super) fn asked_before(model: &str, earlier: &[Request]) -> usize {
    earlier.iter().filter(|request| request.json()["model"] == model).count()
}
