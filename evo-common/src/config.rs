//! Configuration.

mod agent;
pub mod check;
pub mod env;
mod gateway;
pub mod load;
mod operations;
pub mod sources;

pub use agent::AgentConfig;
pub use check::http_url as check_http_url;
pub use gateway::{
    GatewayConfig, ModelCost, ModelMetadata, ProviderConfig, ProviderType, RateLimitConfig,
    ReliabilityConfig, RoutingConfig, ServerConfig,
};
pub use operations::{CacheConfig, LoggingConfig, TracingConfig, UsageConfig};
pub use sources::{SourceConfig, SourceKind, SourcesConfig};
