//! Anthropic's Messages from and to the neutral model.

mod blocks;
mod messages;
mod request;
mod response;
mod stream;
mod thinking;

pub(super) use request::{read as read_request, write as write_request};
pub(super) use response::{read as read_response, write as write_response};
pub(super) use stream::{Reader, Writer};
