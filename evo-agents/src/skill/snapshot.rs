//! The skills in use as one call sees them.

use std::{collections::BTreeMap, fmt, sync::Arc};

use evo_common::{config::SourceConfig, rollout::takes_canary, skill::SkillManifest};

use super::{
    execute::CallPolicy,
    package::Package,
    parts::{Part, Parts},
    run,
};

/// Most skills that a composed one is made of, however deep.
const MAX_PARTS: usize = 256;

/// A skill that can be called.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) package: Arc<Package>,
    /// Digest of the package; absent for a skill of the agent's own folder.
    pub(crate) artifact_id: Option<String>,
    /// The new version that gets a part of the calls.
    pub(crate) canary: Option<KnownCanary>,
    /// The source that it comes from, if that is configured.
    pub(crate) source: Option<SourceConfig>,
}

/// A new version of a skill that gets a part of the calls.
#[derive(Debug, Clone)]
pub(crate) struct KnownCanary {
    pub(crate) package: Arc<Package>,
    pub(crate) artifact_id: String,
    /// In percent.
    pub(crate) share: u8,
}

impl Known {
    /// A skill of the agent's own folder, of which there is one version.
    pub(crate) fn local(package: &Package) -> Self {
        let package = Arc::new(package.clone());
        Self { package, artifact_id: None, canary: None, source: None }
    }

    pub(crate) fn name(&self) -> &str {
        &self.package.manifest.name
    }

    /// The package with this digest, if it is one of the skill's.
    pub(crate) fn package_of(&self, artifact_id: &str) -> Option<Arc<Package>> {
        if self.artifact_id.as_deref() == Some(artifact_id) {
            return Some(Arc::clone(&self.package));
        }
        let canary = self.canary.as_ref().filter(|canary| canary.artifact_id == artifact_id)?;
        Some(Arc::clone(&canary.package))
    }

    /// The version that a request gets, with its digest.
    fn choose(&self, request_id: &str) -> (&Arc<Package>, Option<&str>) {
        match &self.canary {
            Some(canary) if takes_canary(request_id, canary.share) => {
                (&canary.package, Some(&canary.artifact_id))
            }
            _ => (&self.package, self.artifact_id.as_deref()),
        }
    }
}

/// The skills in use as one call sees them: whatever king puts into use meanwhile, a name means the
/// same version from the call's beginning to its end. Of a skill that has a new version on a part of
/// the calls, the id of the call's request says which one it is. Cheap to clone.
#[derive(Clone, Default)]
pub struct Snapshot {
    known: Arc<[Known]>,
    servers: Arc<BTreeMap<String, String>>,
    request_id: Arc<str>,
}

/// A skill as one call gets it.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The version.
    pub package: Arc<Package>,
    /// Digest of it; absent for a skill of the agent's own folder.
    pub artifact_id: Option<String>,
    /// What a call of it may do: what its own source allows.
    pub policy: CallPolicy,
}

impl Snapshot {
    pub(crate) fn new(
        known: Arc<[Known]>,
        servers: Arc<BTreeMap<String, String>>,
        request_id: &str,
    ) -> Self {
        Self { known, servers, request_id: request_id.into() }
    }

    /// The version of a skill that this call gets; [`None`] when no skill of the name is in use.
    pub fn resolve(&self, name: &str) -> Option<Arc<Package>> {
        self.known(name).map(|known| Arc::clone(known.choose(&self.request_id).0))
    }

    /// The same with what a call of it may do, and with the versions of the skills that it is made of.
    pub fn choose(&self, name: &str) -> Option<Chosen> {
        let known = self.known(name)?;
        let (package, artifact_id) = known.choose(&self.request_id);
        let parts = self.parts_of(package);
        Some(Chosen {
            package: Arc::clone(package),
            artifact_id: artifact_id.map(str::to_owned),
            policy: CallPolicy { parts, ..self.policy(known, package) },
        })
    }

    /// The versions of the skills that a package is made of, and of those that they are made of.
    pub fn parts_of(&self, package: &Package) -> Parts {
        let mut wanted: Vec<&str> = names_in(package);
        let mut parts = BTreeMap::new();
        while let Some(name) = wanted.pop() {
            if parts.contains_key(name) || parts.len() >= MAX_PARTS {
                continue;
            }
            let Some(known) = self.known(name) else { continue };
            let (package, _) = known.choose(&self.request_id);
            let policy = self.policy(known, package);
            parts.insert(name.to_owned(), Part { package: Arc::clone(package), policy });
            wanted.extend(names_in(package));
        }
        if parts.is_empty() { Parts::default() } else { parts.into_iter().collect() }
    }

    fn policy(&self, known: &Known, package: &Package) -> CallPolicy {
        run::policy_of(package, known.source.as_slice(), &self.servers)
    }

    /// What each skill in use does.
    pub fn manifests(&self) -> impl Iterator<Item = &SkillManifest> {
        self.known.iter().map(|known| &known.package.manifest)
    }

    /// The same without new versions that only get a part of the calls.
    pub(crate) fn settled(self) -> Self {
        let settled = |known: &Known| Known { canary: None, ..known.clone() };
        Self { known: self.known.iter().map(settled).collect(), ..self }
    }

    /// The same with skills that go before those of their names.
    pub(crate) fn over(self, local: &[Known]) -> Self {
        if local.is_empty() {
            return self;
        }
        let hidden = |known: &&Known| !local.iter().any(|own| own.name() == known.name());
        let known = local.iter().chain(self.known.iter().filter(hidden)).cloned().collect();
        Self { known, ..self }
    }

    fn known(&self, name: &str) -> Option<&Known> {
        self.known.iter().find(|known| known.name() == name)
    }
}

/// Names of the skills that a package says it needs.
fn names_in(package: &Package) -> Vec<&str> {
    package.manifest.dependencies.iter().map(String::as_str).collect()
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("request_id", &self.request_id)
            .field("skills", &self.known.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use evo_common::skill::files;

    use super::*;

    fn package(name: &str, version: &str, dependencies: &[&str]) -> Arc<Package> {
        let manifest = format!(
            "name = \"{name}\"\nversion = \"{version}\"\ndescription = \"\"\ncapabilities = []\n\
             inputs = []\noutputs = []\ndependencies = {dependencies:?}\n"
        );
        let http = "[[endpoints]]\nname = \"call\"\nurl = \"{server}/a\"\nmethod = \"GET\"\n[extra]\nserver = \"shop\"\n";
        let step = |name: &&str| format!("[[steps]]\nskill = {name:?}\n");
        let config = match dependencies {
            [] => http.to_owned(),
            some => some.iter().map(step).collect(),
        };
        let files = [
            (files::MANIFEST.to_owned(), manifest.into_bytes()),
            (files::CONFIG.to_owned(), config.into_bytes()),
        ];
        Arc::new(Package::from_files(files.into()).unwrap())
    }

    fn known(name: &str, share: Option<u8>, dependencies: &[&str]) -> Known {
        Known {
            package: package(name, "0.1.0", dependencies),
            artifact_id: Some("old".to_owned()),
            canary: share.map(|share| KnownCanary {
                package: package(name, "0.1.1", dependencies),
                artifact_id: "new".to_owned(),
                share,
            }),
            source: None,
        }
    }

    #[test]
    fn a_call_gets_one_version_of_each_skill_and_its_request_says_which() {
        let all = [
            known("a", Some(30), &[]),
            known("b", Some(60), &["a"]),
            known("c", None, &["b", "gone"]),
        ];
        let all: Arc<[Known]> = all.into();
        let servers: Arc<BTreeMap<_, _>> = Arc::default();
        let mut canaries = [0; 3];
        for number in 0..2_000 {
            let id = format!("req-{number}");
            let snapshot = Snapshot::new(Arc::clone(&all), Arc::clone(&servers), &id);
            let whole = snapshot.choose("c").unwrap().policy.parts;
            assert!(whole.get("gone").is_none() && whole.get("c").is_none());
            for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
                let version = &snapshot.resolve(name).unwrap().manifest.version;
                let share = [30, 60, 0][index];
                assert_eq!(version == "0.1.1", takes_canary(&id, share), "{name} for {id}");
                let chosen = snapshot.choose(name).unwrap();
                assert_eq!(chosen.package.manifest.version, *version, "always the same one");
                assert_eq!(chosen.artifact_id.as_deref() == Some("new"), version == "0.1.1");
                if let Some(part) = whole.get(name) {
                    assert_eq!(part.package.manifest.version, *version, "also as a part");
                }
                canaries[index] += u32::from(version == "0.1.1");
            }
            assert!(snapshot.resolve("d").is_none() && snapshot.choose("d").is_none());
        }
        assert!((500..700).contains(&canaries[0]), "{canaries:?}");
        assert!((1_100..1_300).contains(&canaries[1]), "{canaries:?}");
        assert_eq!(canaries[2], 0);
    }

    #[test]
    fn a_part_may_do_what_its_own_source_allows() {
        let mut shop = SourceConfig::openapi("shop", "https://docs.example.com/api.json");
        shop.allow_origins = vec!["http://127.0.0.1:9000".to_owned()];
        let part = Known { source: Some(shop), ..known("a", None, &[]) };
        let servers = BTreeMap::from([
            ("shop".to_owned(), "http://127.0.0.1:9000".to_owned()),
            ("other".to_owned(), "http://127.0.0.1:9001".to_owned()),
        ]);
        let all = [part, known("b", None, &["a"])];
        let snapshot = Snapshot::new(all.into(), Arc::new(servers), "q");
        let own = snapshot.choose("a").unwrap().policy;
        let parts = snapshot.choose("b").unwrap().policy.parts;
        for policy in [&own, &parts.get("a").unwrap().policy] {
            assert_eq!(policy.allow_origins, ["http://127.0.0.1:9000"]);
            assert_eq!(policy.servers.keys().collect::<Vec<_>>(), ["shop"]);
        }
    }
}
