//! The body of a request to a provider.

use std::{
    convert::Infallible,
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

/// Up to this size a body is copied into one piece, which is cheaper to write than three.
const ONE_PIECE: usize = 64 * 1024;

/// A body whose length is known. Cloning it copies no bytes. It is small, because a connection keeps
/// room for many requests.
#[derive(Debug, Clone)]
pub(crate) enum SendBody {
    /// One piece.
    Whole(Bytes),
    /// What is left of three.
    Spliced(Box<[Bytes; 3]>),
}

impl Default for SendBody {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl SendBody {
    /// The body with `new` in the place of the bytes at `at`.
    pub(crate) fn spliced(body: &Bytes, at: Range<usize>, new: &[u8]) -> Self {
        if body.len() <= ONE_PIECE {
            let mut whole = BytesMut::with_capacity(body.len() - at.len() + new.len());
            whole.extend_from_slice(&body[..at.start]);
            whole.extend_from_slice(new);
            whole.extend_from_slice(&body[at.end..]);
            return whole.freeze().into();
        }
        let pieces = [body.slice(..at.start), Bytes::copy_from_slice(new), body.slice(at.end..)];
        Self::Spliced(Box::new(pieces))
    }

    fn pieces(&self) -> &[Bytes] {
        match self {
            Self::Whole(body) => std::slice::from_ref(body),
            Self::Spliced(pieces) => &pieces[..],
        }
    }

    fn pieces_mut(&mut self) -> &mut [Bytes] {
        match self {
            Self::Whole(body) => std::slice::from_mut(body),
            Self::Spliced(pieces) => &mut pieces[..],
        }
    }

    fn left(&self) -> u64 {
        self.pieces().iter().map(|piece| piece.len() as u64).sum()
    }
}

impl From<Bytes> for SendBody {
    fn from(body: Bytes) -> Self {
        Self::Whole(body)
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.pieces_mut().iter_mut().find(|piece| !piece.is_empty());
        Poll::Ready(next.map(|piece| Ok(Frame::data(std::mem::take(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn only_the_place_changes(
            before in 0_usize..80_000, old in 0_usize..20, new in "[a-z]{0,20}", after in 0_usize..80_000,
        ) {
            let body = Bytes::from(["a".repeat(before), "b".repeat(old), "c".repeat(after)].concat());
            let spliced = SendBody::spliced(&body, before..before + old, new.as_bytes());
            let length = spliced.size_hint().exact().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let whole = runtime.block_on(spliced.collect()).unwrap().to_bytes();
            prop_assert_eq!(whole.len() as u64, length);
            prop_assert_eq!(whole, ["a".repeat(before), new, "c".repeat(after)].concat());
        }
    }
}
