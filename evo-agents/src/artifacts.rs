//! Packages by digest, from king and from the cache on disk.

use std::{path::PathBuf, sync::Arc, time::Duration};

use evo_common::{artifact, ids::ArtifactId, tokens::Secret};
use futures_util::StreamExt as _;

use crate::skill::{
    cache::{self, Cache},
    egress,
    package::{self, Package},
};

const TIMEOUT: Duration = Duration::from_secs(60);
const MEDIA_TYPE: &str = "application/x-tar";

/// Fetches and stores packages by their digest. Cheap to clone.
///
/// What was fetched once stays in the cache; everything is verified against its digest, wherever
/// it comes from.
#[derive(Clone)]
pub struct ArtifactClient {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Cache,
    king: Option<King>,
}

struct King {
    http: reqwest::Client,
    address: String,
    token: Option<Secret>,
}

impl std::fmt::Debug for ArtifactClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArtifactClient")
            .field("cache", &self.inner.cache)
            .field("king", &self.inner.king.as_ref().map(|king| &king.address))
            .finish()
    }
}

/// Why a package could not be had or stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// King has no such package.
    #[error("king has no package {0}")]
    NotFound(ArtifactId),
    /// King did not answer.
    #[error("king's artifact store at {address} can't be reached: {message}")]
    Unreachable {
        /// King's address.
        address: String,
        /// What happened.
        message: String,
    },
    /// King refused.
    #[error("king's artifact store at {address} answered {status}: {message}")]
    Refused {
        /// King's address.
        address: String,
        /// HTTP status.
        status: u16,
        /// What king said.
        message: String,
    },
    /// The bytes are not those of the digest.
    #[error("the package {expected} arrived with the digest {actual}; it was not used")]
    Digest {
        /// What was asked for.
        expected: ArtifactId,
        /// What came.
        actual: ArtifactId,
    },
    /// Larger than any package may be.
    #[error("the package is larger than {} bytes", artifact::MAX_ARCHIVE_BYTES)]
    TooLarge,
    /// The cache folder can't be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The archive is no valid package.
    #[error(transparent)]
    Package(#[from] package::Error),
}

impl Error {
    /// Whether another try may pass.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Cache(_) => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::NotFound(_) | Self::Digest { .. } | Self::TooLarge | Self::Package(_) => false,
        }
    }
}

impl From<Error> for crate::handler::StageError {
    fn from(error: Error) -> Self {
        let transient = error.is_transient();
        Self { message: error.to_string(), transient }
    }
}

impl ArtifactClient {
    /// Packages of the king at `address` (`http://127.0.0.1:3000`), kept in the folder `cache`.
    pub fn new(address: &str, token: Option<Secret>, cache: PathBuf) -> Self {
        let http = egress::client(|builder| {
            builder.timeout(TIMEOUT).connect_timeout(Duration::from_secs(10))
        });
        let address = address.trim_end_matches('/').to_owned();
        let king = Some(King { http, address, token });
        Self { inner: Arc::new(Inner { cache: Cache::new(cache), king }) }
    }

    /// Packages of the folder `cache` only, without a king: for trying a handler alone.
    pub fn local(cache: PathBuf) -> Self {
        Self { inner: Arc::new(Inner { cache: Cache::new(cache), king: None }) }
    }

    /// The archive with this digest.
    pub async fn get(&self, id: &ArtifactId) -> Result<Vec<u8>, Error> {
        if let Some(bytes) = self.inner.cache.read(id).await? {
            return Ok(bytes);
        }
        let Some(king) = &self.inner.king else { return Err(Error::NotFound(id.clone())) };
        let bytes = king.fetch(id).await?;
        self.inner.cache.write(id, &bytes).await?;
        Ok(bytes)
    }

    /// The package with this digest.
    pub async fn package(&self, id: &ArtifactId) -> Result<Package, Error> {
        Ok(Package::from_archive(&self.get(id).await?)?)
    }

    /// Stores an archive and returns its digest. Storing the same bytes again changes nothing.
    pub async fn put(&self, bytes: Vec<u8>) -> Result<ArtifactId, Error> {
        if bytes.len() > artifact::MAX_ARCHIVE_BYTES {
            return Err(Error::TooLarge);
        }
        let id = ArtifactId::of(&bytes);
        self.inner.cache.write(&id, &bytes).await?;
        if let Some(king) = &self.inner.king {
            king.store(&id, bytes).await?;
        }
        Ok(id)
    }
}

impl King {
    fn url(&self, id: &ArtifactId) -> String {
        format!("{}/artifacts/{id}", self.address)
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        Error::Unreachable { address: self.address.clone(), message: egress::describe(error) }
    }

    async fn fetch(&self, id: &ArtifactId) -> Result<Vec<u8>, Error> {
        let response = self
            .authorized(self.http.get(self.url(id)))
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if response.status() == reqwest::StatusCode::NOT_FOUND {
            return Err(Error::NotFound(id.clone()));
        }
        let response = self.success(response).await?;
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| self.unreachable(&error))?;
            if bytes.len() + chunk.len() > artifact::MAX_ARCHIVE_BYTES {
                return Err(Error::TooLarge);
            }
            bytes.extend_from_slice(&chunk);
        }
        let actual = ArtifactId::of(&bytes);
        if actual == *id { Ok(bytes) } else { Err(Error::Digest { expected: id.clone(), actual }) }
    }

    async fn store(&self, id: &ArtifactId, bytes: Vec<u8>) -> Result<(), Error> {
        let request = self.http.put(self.url(id)).header("content-type", MEDIA_TYPE).body(bytes);
        let response =
            self.authorized(request).send().await.map_err(|error| self.unreachable(&error))?;
        self.success(response).await?;
        Ok(())
    }

    /// The response itself when it is a success, else king's error message.
    async fn success(&self, response: reqwest::Response) -> Result<reqwest::Response, Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        let message = serde_json::from_str::<evo_common::api::ErrorBody>(&text)
            .map_or_else(|_| text.chars().take(300).collect(), |body| body.error.message);
        Err(Error::Refused { address: self.address.clone(), status: status.as_u16(), message })
    }
}
