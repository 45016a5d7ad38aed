//! One TLS crypto provider for the whole process.

use std::sync::Once;

static INSTALLED: Once = Once::new();

/// Makes ring the crypto provider of rustls. Call it before the first reqwest client is built,
/// which is compiled without a provider of its own; further calls do nothing.
pub fn install() {
    INSTALLED.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("Another part of this process has installed a TLS provider already");
        }
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn installing_twice_is_fine() {
        super::install();
        super::install();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }
}
