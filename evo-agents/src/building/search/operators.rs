//! The mutation operators: each makes one small, typed change to a call.

mod address;
mod compose;
mod parameters;
mod protocol;

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{genome::Genome, knowledge::Context, moves};

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// Another server, or another prefix before the path.
    BaseUrl,
    /// Segments of the path: another word, one more, one less, another order or writing; a version;
    /// the last slash; the path of another skill.
    Path,
    /// Another method.
    Verb,
    /// An input moves between path, query, header and body, or gets a place.
    Location,
    /// A parameter is called otherwise: in another style, by a synonym, by the nearest known name.
    Name,
    /// Another media type of the body.
    ContentType,
    /// Another media type is asked for.
    Accept,
    /// Another token, or another way to send it.
    Auth,
    /// Parts of long lists: a parameter that asks for one.
    Pagination,
    /// Another time limit.
    Timeout,
    /// More or fewer repeats of a GET that did not come through.
    Retry,
    /// What the skill gives lies elsewhere in the answer.
    Output,
    /// Which 2xx statuses are a success.
    Success,
    /// How a list is joined.
    ListStyle,
    /// The shape of the body.
    Body,
    /// A parameter or header is left out.
    Omit,
    /// Two active skills, one after the other; or other inputs for the second one.
    Compose,
}

impl Operator {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::BaseUrl,
        Self::Path,
        Self::Verb,
        Self::Location,
        Self::Name,
        Self::ContentType,
        Self::Accept,
        Self::Auth,
        Self::Pagination,
        Self::Timeout,
        Self::Retry,
        Self::Output,
        Self::Success,
        Self::ListStyle,
        Self::Body,
        Self::Omit,
        Self::Compose,
    ];

    /// Its name, as the provenance of a package lists it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BaseUrl => "base_url",
            Self::Path => "path",
            Self::Verb => "verb",
            Self::Location => "location",
            Self::Name => "name",
            Self::ContentType => "content_type",
            Self::Accept => "accept",
            Self::Auth => "auth",
            Self::Pagination => "pagination",
            Self::Timeout => "timeout",
            Self::Retry => "retry",
            Self::Output => "output",
            Self::Success => "success",
            Self::ListStyle => "list_style",
            Self::Body => "body",
            Self::Omit => "omit",
            Self::Compose => "compose",
        }
    }

    /// A changed genome; [`None`] when there is nothing that it could change. Half of the time it is one
    /// of the changes that are worth a try, all alike, else any.
    pub(super) fn apply(
        self,
        genome: &Genome,
        context: &Context<'_>,
        random: &mut StdRng,
    ) -> Option<Genome> {
        if genome.is_composed() && self != Self::Compose {
            return None;
        }
        if random.random_bool(0.5)
            && let Some(listed) = one_of(&moves::of(self, genome, None, context), random)
        {
            return Some(listed.genome.clone());
        }
        let mut changed = match self {
            Self::BaseUrl => address::base_url(genome, context, random),
            Self::Path => address::path(genome, context, random),
            Self::Verb => address::verb(genome, context, random),
            Self::Location => parameters::location(genome, context, random),
            Self::Name => parameters::name(genome, context, random),
            Self::Pagination => parameters::pagination(genome, random),
            Self::ListStyle => parameters::list_style(genome, context, random),
            Self::Body => parameters::body(genome, context, random),
            Self::Omit => parameters::omit(genome, random),
            Self::ContentType => protocol::content_type(genome, context, random),
            Self::Accept => protocol::accept(genome, context, random),
            Self::Auth => protocol::auth(genome, context, random),
            Self::Timeout => protocol::timeout(genome, random),
            Self::Retry => Some(protocol::retry(genome, random)),
            Self::Output => protocol::output(genome, context, random),
            Self::Success => Some(protocol::success(genome, context)),
            Self::Compose => compose::compose(genome, context, random),
        }?;
        changed.name_inputs(context.seed);
        (changed != *genome).then_some(changed)
    }
}

/// One of several; the first ones, which are thought to be better, more often: each is passed over
/// every other time. What was tried before costs nothing, so this comes down to trying them in order.
fn one_of_first<'a, T>(list: &'a [T], random: &mut StdRng) -> Option<&'a T> {
    let passed = list.iter().position(|_| random.random_bool(0.5));
    list.get(passed.unwrap_or(0))
}

/// One of several, all alike.
fn one_of<'a, T>(list: &'a [T], random: &mut StdRng) -> Option<&'a T> {
    list.choose(random)
}
