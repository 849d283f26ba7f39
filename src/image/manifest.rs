//! Which members of an archive or folder make up an image: OCI layouts, and what `docker save`
//! writes.

use serde::Deserialize;

use super::pack::digest;
use super::store::Store;
use super::{Result, refused};

/// An image of a store.
#[derive(Debug)]
pub struct Image {
    /// Its configuration, as it stands there.
    pub config: Vec<u8>,
    /// From the bottom up.
    pub layers: Vec<Blob>,
}

/// A layer's archive.
#[derive(Debug)]
pub struct Blob {
    /// The member that it is.
    pub name: Vec<u8>,
    /// Its digest, where the image tells it.
    pub digest: Option<String>,
    /// The digest of what is in it once decompressed.
    pub diff_id: String,
}

/// How deep an index may refer to others.
const MAX_INDEXES: usize = 4;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const FULL_NAME: &str = "io.containerd.image.name";

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: std::collections::HashMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// An index or a manifest: which one shows by what it has.
#[derive(Deserialize)]
struct Document {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// An item of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Image {
    /// The image called `wanted`, or the only one for this machine.
    ///
    /// # Errors
    /// No such image, several, digests that are not those of the content.
    pub fn find(store: &Store, wanted: Option<&str>) -> Result<Self> {
        if store.has(b"index.json") {
            Self::find_oci(store, wanted)
        } else if store.has(b"manifest.json") {
            Self::find_saved(store, wanted)
        } else {
            Err(refused(
                "it is no image: it has neither index.json (OCI) nor manifest.json (docker save)",
            ))
        }
    }

    fn find_oci(store: &Store, wanted: Option<&str>) -> Result<Self> {
        let index: Index = parse(&store.text(b"index.json")?, "index.json")?;
        let named = |descriptor: &Descriptor| {
            let names = [REF_NAME, FULL_NAME].map(|key| descriptor.annotations.get(key));
            names.into_iter().flatten().cloned().collect::<Vec<_>>()
        };
        let mut descriptor = choose(index.manifests, wanted, named)?;
        for _ in 0..MAX_INDEXES {
            let document: Document = parse(&blob(store, &descriptor.digest)?, &descriptor.digest)?;
            match document {
                Document { manifests: Some(manifests), .. } => {
                    descriptor = for_this_machine(manifests)?
                }
                Document { config: Some(config), layers: Some(layers), .. } => {
                    let digests = layers.into_iter().map(|layer| layer.digest);
                    let blobs = digests.map(|digest| Ok((blob_name(&digest)?, Some(digest))));
                    return Self::new(blob(store, &config.digest)?, blobs.collect::<Result<_>>()?);
                }
                Document { .. } => {
                    let digest = descriptor.digest;
                    return Err(refused(format!(
                        "{digest} is neither a manifest nor an index of manifests"
                    )));
                }
            }
        }
        Err(refused("its indexes refer to each other without an end"))
    }

    fn find_saved(store: &Store, wanted: Option<&str>) -> Result<Self> {
        let saved: Vec<Saved> = parse(&store.text(b"manifest.json")?, "manifest.json")?;
        let saved = choose(saved, wanted, |saved| saved.repo_tags.clone().unwrap_or_default())?;
        let config = store.text(saved.config.as_bytes())?;
        let hex = saved.config.rsplit('/').next().unwrap_or_default();
        let hex = hex.strip_suffix(".json").unwrap_or(hex);
        if is_hex_digest(hex) {
            check(&config, &format!("sha256:{hex}"))?;
        }
        Self::new(config, saved.layers.into_iter().map(|name| (name.into_bytes(), None)).collect())
    }

    fn new(config: Vec<u8>, blobs: Vec<(Vec<u8>, Option<String>)>) -> Result<Self> {
        let Config { rootfs } = parse(&config, "its configuration")?;
        let (here, there) = (blobs.len(), rootfs.diff_ids.len());
        if here != there {
            return Err(refused(format!(
                "it has {here} layers, and its configuration lists {there}"
            )));
        }
        let layers = blobs.into_iter().zip(rootfs.diff_ids);
        let layers =
            layers.map(|((name, digest), diff_id)| Blob { name, digest, diff_id }).collect();
        Ok(Self { config, layers })
    }
}

/// The one of `images` that is called `wanted`, or the only one.
fn choose<T>(
    mut images: Vec<T>,
    wanted: Option<&str>,
    names: impl Fn(&T) -> Vec<String>,
) -> Result<T> {
    let all: Vec<String> = images.iter().flat_map(&names).collect();
    if let Some(wanted) = wanted {
        images.retain(|image| names(image).iter().any(|name| name == wanted));
    }
    let shown = if all.is_empty() { "none has a name".to_owned() } else { all.join(", ") };
    match (images.pop(), images.len(), wanted) {
        (Some(image), 0, _) => Ok(image),
        (None, _, None) => Err(refused("there is no image in it")),
        (None, _, Some(wanted)) => {
            Err(refused(format!("no image is called {wanted}; there are: {shown}")))
        }
        (Some(_), _, _) => Err(refused(format!(
            "there are several images in it; name one with --image-name: {shown}"
        ))),
    }
}

/// The image for this machine among those for several.
fn for_this_machine(mut manifests: Vec<Descriptor>) -> Result<Descriptor> {
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    };
    let fits = |descriptor: &Descriptor| {
        descriptor.platform.as_ref().is_some_and(|it| it.os == "linux" && it.architecture == here)
    };
    if manifests.len() > 1 {
        manifests.retain(fits);
    }
    let none = || refused(format!("there is no image for linux/{here} in it"));
    manifests.into_iter().next().ok_or_else(none)
}

/// A short blob, of which the digest is right.
fn blob(store: &Store, digest: &str) -> Result<Vec<u8>> {
    let content = store.text(&blob_name(digest)?)?;
    check(&content, digest)?;
    Ok(content)
}

fn check(content: &[u8], wanted: &str) -> Result<()> {
    let is = digest(content);
    if is == wanted {
        return Ok(());
    }
    Err(refused(format!("a part that should have the digest {wanted} has {is}: it is damaged")))
}

/// Where an OCI layout keeps a blob.
fn blob_name(digest: &str) -> Result<Vec<u8>> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if is_hex_digest(hex) => Ok(format!("blobs/sha256/{hex}").into_bytes()),
        _ => Err(refused(format!("the digest {digest:?} is not supported, only sha256 is"))),
    }
}

fn is_hex_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn parse<'a, T: Deserialize<'a>>(text: &'a [u8], what: &str) -> Result<T> {
    serde_json::from_slice(text)
        .map_err(|error| refused(format!("{what} cannot be understood: {error}")))
}
