//! Where an `anthropic` upstream stands, and who asks: `via`, `region`, `project`, and the environment's credentials.

use belljar_model::{AwsCredentials, GoogleCredentials, Secret, UpstreamKind};

use super::ConfigError;
use super::environment::Environment;
use super::upstream::{UpstreamTable, proxy};

/// What an `anthropic` upstream speaks.
pub(super) fn kind(table: &UpstreamTable, environment: &Environment) -> Result<UpstreamKind, ConfigError> {
    let proxy = proxy(environment);
    match table.via.as_deref() {
        None => {
            refuse(table, &[("region", &table.region), ("project", &table.project)], "is for `via` alone")?;
            Ok(UpstreamKind::Anthropic {
                base_url: table.base_url.clone().unwrap_or_else(|| "https://api.anthropic.com".to_owned()),
                api_key: table.api_key(environment)?.ok_or_else(|| table.wrong("api_key_env", "is missing"))?,
                proxy,
            })
        }
        Some("bedrock") => {
            refuse(table, &[("project", &table.project)], "is for `via = \"vertex\"` alone")?;
            let region = required(table, "region", &table.region)?;
            let default = || format!("https://bedrock-runtime.{region}.amazonaws.com");
            Ok(UpstreamKind::Bedrock {
                base_url: table.base_url.clone().unwrap_or_else(default),
                credentials: amazons(table, environment)?,
                region,
                proxy,
            })
        }
        Some("vertex") => {
            let region = required(table, "region", &table.region)?;
            let project = required(table, "project", &table.project)?;
            let default = || match region.as_str() {
                "global" => "https://aiplatform.googleapis.com".to_owned(),
                "us" | "eu" => format!("https://aiplatform.{region}.rep.googleapis.com"),
                region => format!("https://{region}-aiplatform.googleapis.com"),
            };
            Ok(UpstreamKind::Vertex {
                base_url: table.base_url.clone().unwrap_or_else(default),
                credentials: googles(table, environment)?,
                region,
                project,
                proxy,
            })
        }
        Some(_) => Err(table.wrong("via", "must be \"bedrock\" or \"vertex\"")),
    }
}

fn refuse(table: &UpstreamTable, keys: &[(&str, &Option<String>)], problem: &str) -> Result<(), ConfigError> {
    match keys.iter().find(|(_, value)| value.is_some()) {
        Some((key, _)) => Err(table.wrong(key, problem)),
        None => Ok(()),
    }
}

fn required(table: &UpstreamTable, key: &str, value: &Option<String>) -> Result<String, ConfigError> {
    value.clone().ok_or_else(|| table.wrong(key, "is missing"))
}

/// The key that the file names, else a Bedrock key, else keys to sign with.
fn amazons(table: &UpstreamTable, environment: &Environment) -> Result<AwsCredentials, ConfigError> {
    if let Some(key) = table.api_key(environment)? {
        return Ok(AwsCredentials::Bearer(key));
    }
    if let Some(key) = environment.get("AWS_BEARER_TOKEN_BEDROCK") {
        return Ok(AwsCredentials::Bearer(Secret::new(key)));
    }
    match (environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => Ok(AwsCredentials::Keys {
            access_key_id: id.to_owned(),
            secret_access_key: Secret::new(secret),
            temporary_token: environment.get("AWS_SESSION_TOKEN").map(Secret::new),
        }),
        (_, _) => Err(ConfigError(format!(
            "upstream \"{}\": no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_BEARER_TOKEN_BEDROCK, or \
             name a variable that holds a Bedrock key with api_key_env",
            table.name
        ))),
    }
}

/// The token that the file names, else a service account's key in the file that the environment names.
fn googles(table: &UpstreamTable, environment: &Environment) -> Result<GoogleCredentials, ConfigError> {
    if let Some(token) = table.api_key(environment)? {
        return Ok(GoogleCredentials::Token(token));
    }
    let Some(path) = environment.get("GOOGLE_APPLICATION_CREDENTIALS") else {
        return Err(ConfigError(format!(
            "upstream \"{}\": no credentials; set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account's key, or name a \
             variable that holds an access token with api_key_env",
            table.name
        )));
    };
    let json = std::fs::read_to_string(path).map_err(|error| {
        ConfigError(format!("upstream \"{}\": GOOGLE_APPLICATION_CREDENTIALS: {path}: {error}", table.name))
    })?;
    Ok(GoogleCredentials::ServiceAccount(Secret::new(json)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::file::ConfigFile;

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "hush")];

    fn read(lines: &str, variables: &[(&str, &str)]) -> Result<UpstreamKind, String> {
        let file = ConfigFile::parse(&format!("[[upstream]]\nname=\"a\"\nkind=\"anthropic\"\n{lines}"));
        let upstreams = file.expect("the file parses").upstreams(&Environment::of(variables), Path::new("/data"));
        upstreams.map(|mut upstreams| upstreams.remove(0).kind).map_err(|error| error.to_string())
    }

    #[test]
    fn clouds_are_found_by_their_region() {
        let base = |lines: &str, variables: &[(&str, &str)]| match read(lines, variables).expect("a good upstream") {
            UpstreamKind::Bedrock { base_url, .. } | UpstreamKind::Vertex { base_url, .. } => base_url,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            base("via=\"bedrock\"\nregion=\"eu-west-1\"", &KEYS),
            "https://bedrock-runtime.eu-west-1.amazonaws.com"
        );
        assert_eq!(base("via=\"bedrock\"\nregion=\"eu-west-1\"\nbase_url=\"http://h\"", &KEYS), "http://h");
        let regions = [
            ("us-east5", "https://us-east5-aiplatform.googleapis.com"),
            ("global", "https://aiplatform.googleapis.com"),
            ("eu", "https://aiplatform.eu.rep.googleapis.com"),
        ];
        for (region, expected) in regions {
            let lines = format!("via=\"vertex\"\nproject=\"p\"\napi_key_env=\"TOKEN\"\nregion=\"{region}\"");
            assert_eq!(base(&lines, &[("TOKEN", "t")]), expected);
        }
    }

    #[test]
    fn a_bedrock_key_comes_before_keys_to_sign_with_and_none_is_shown() {
        let kind = |lines: &str, more: &[(&str, &str)]| {
            let lines = format!("via=\"bedrock\"\nregion=\"us-east-1\"\n{lines}");
            let kind = read(&lines, &[&KEYS[..], more].concat()).expect("a good upstream");
            assert!(!format!("{kind:?}").contains("hush"), "{kind:?}");
            match kind {
                UpstreamKind::Bedrock { credentials: AwsCredentials::Bearer(_), .. } => "bearer",
                UpstreamKind::Bedrock { credentials: AwsCredentials::Keys { temporary_token, .. }, .. } => {
                    if temporary_token.is_some() {
                        "temporary"
                    } else {
                        "keys"
                    }
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(kind("", &[]), "keys");
        assert_eq!(kind("", &[("AWS_SESSION_TOKEN", "hush-t")]), "temporary");
        assert_eq!(kind("", &[("AWS_BEARER_TOKEN_BEDROCK", "hush-b")]), "bearer");
        assert_eq!(kind("api_key_env=\"MINE\"", &[("MINE", "hush-m")]), "bearer");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("via=\"azure\"", "via: must be \"bedrock\" or \"vertex\""),
            ("region=\"us-east-1\"", "region is for `via` alone"),
            ("via=\"bedrock\"", "region is missing"),
            ("via=\"bedrock\"\nregion=\"r\"\nproject=\"p\"", "project is for `via = \"vertex\"` alone"),
            ("via=\"vertex\"\nregion=\"r\"", "project is missing"),
            (
                "via=\"bedrock\"\nregion=\"r\"",
                "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_BEARER_TOKEN_BEDROCK, or name a variable \
                 that holds a Bedrock key with api_key_env",
            ),
            (
                "via=\"vertex\"\nregion=\"r\"\nproject=\"p\"",
                "no credentials; set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account's key, or name a variable that \
                 holds an access token with api_key_env",
            ),
        ];
        for (lines, expected) in cases {
            assert_eq!(read(lines, &[]).map(|_| ()), Err(format!("upstream \"a\": {expected}")), "{lines}");
        }
    }
    #[test]
    fn clouds_are_not_recorded() {
        for record in ["record=true", "record=\"b.jsonl\""] {
            let expected = "upstream \"a\": record is not for upstreams with `via`".to_owned();
            let lines = format!("via=\"bedrock\"\nregion=\"us-east-1\"\n{record}");
            assert_eq!(read(&lines, &KEYS).map(|_| ()), Err(expected), "{lines}");
        }
        assert!(read("via=\"bedrock\"\nregion=\"us-east-1\"\nrecord=false", &KEYS).is_ok());
    }
}
