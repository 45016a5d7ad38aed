/// An error that a provider, or the gateway itself, answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub kind: ErrorKind,
    pub message: String,
    /// A word for programs, such as `context_length_exceeded`.
    pub code: Option<String>,
    /// The field of the request that is at fault.
    pub param: Option<String>,
}

/// What sort of error it is, as far as clients tell errors apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    InvalidRequest,
    Authentication,
    Billing,
    Permission,
    NotFound,
    TooLarge,
    RateLimit,
    Internal,
    Timeout,
    Overloaded,
}

impl ErrorKind {
    /// The kind that an HTTP status stands for. Statuses that no protocol lists go by their class.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Authentication,
            402 => Self::Billing,
            403 => Self::Permission,
            404 => Self::NotFound,
            408 | 504 => Self::Timeout,
            413 => Self::TooLarge,
            429 => Self::RateLimit,
            503 | 529 => Self::Overloaded,
            400..=499 => Self::InvalidRequest,
            _ => Self::Internal,
        }
    }
}
