/// Texts that are to become vectors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EmbedRequest {
    /// The model's name as the provider knows it.
    pub model: String,
    /// At least one.
    pub texts: Vec<String>,
    /// How many numbers each vector is to have.
    pub dimensions: Option<u64>,
    /// Who asks, for the provider's own abuse checks.
    pub user: Option<String>,
}

/// The vectors, in the order of the texts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EmbedResponse {
    /// The model that answered, if the provider says it.
    pub model: Option<String>,
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts, if the provider counted them.
    pub tokens: Option<u64>,
}
