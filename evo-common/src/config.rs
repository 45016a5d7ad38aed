//! Configuration.

mod agent;
pub mod check;
pub mod env;
mod gateway;
pub mod load;
mod operations;
mod reliability;
pub mod sources;

pub use agent::AgentConfig;
pub use check::http_url as check_http_url;
pub use gateway::{
    Balance, GatewayConfig, ModelCost, ModelMetadata, PoolConfig, ProviderConfig, ProviderType,
    RateLimitConfig, RoutingConfig, ServerConfig, TargetConfig, WireApi,
};
pub use operations::{CacheConfig, LoggingConfig, TracingConfig, UsageConfig};
pub use reliability::{
    BreakerConfig, ProviderReliabilityConfig, ReliabilityConfig, TimeoutsConfig,
};
pub use sources::{SourceConfig, SourceKind, SourcesConfig};
