//! Setting upstreams up: what is refused, with which words, and which upstream serves which name.

use belljar_model::{ConfigError, Like, Router, Secret, Upstream, UpstreamConfig, UpstreamKind};

const KEY: &str = "sk-test-0123456789";

fn anthropic(base_url: &str, key: &str, proxy: Option<&str>) -> UpstreamConfig {
    let (base_url, api_key, proxy) = (base_url.to_owned(), Secret::new(key), proxy.map(str::to_owned));
    UpstreamConfig::new("up", UpstreamKind::Anthropic { base_url, api_key, proxy })
}

#[test]
fn bad_configurations_are_refused() {
    let address = |key, problem| ConfigError::Address { upstream: "up".to_owned(), key, problem };
    let base_url = |problem| address("base_url", problem);
    let cases = [
        ("nonsense", base_url("not a URL; expected one like `https://host/`")),
        ("ftp://host", base_url("not an http or https URL")),
        ("https://u:p@host", base_url("credentials do not belong in a URL; use `api_key_env`")),
        ("https://host/?x=1", base_url("it has a query or a fragment")),
    ];
    for (url, error) in cases {
        let config = anthropic(url, KEY, None);
        assert_eq!(Router::new(vec![config]).err(), Some(error), "{url}");
    }
    for key in ["", "a\nb"] {
        let error = ConfigError::Key { upstream: "up".to_owned() };
        let config = anthropic("https://host", key, None);
        assert_eq!(Router::new(vec![config]).err(), Some(error), "{key:?}");
    }
    let config = anthropic("https://host", KEY, Some("no proxy at all"));
    let error = address("proxy", "not a proxy's URL; expected one like `http://host:3128`");
    assert_eq!(Router::new(vec![config]).err(), Some(error));
    let mut config = anthropic("https://host", KEY, None);
    config.models = vec!["[".to_owned()];
    assert!(matches!(Router::new(vec![config]), Err(ConfigError::Glob { .. })));
}

#[test]
fn keys_are_not_shown() {
    assert_eq!(format!("{:?}", Secret::new("x")), "***");
    assert!(!format!("{:?}", anthropic("https://host", KEY, None)).contains(KEY));
}

#[test]
fn the_router_takes_the_first_match() {
    let scripted = |name: &str, models: &[&str]| UpstreamConfig {
        models: models.iter().map(|model| (*model).to_owned()).collect(),
        ..UpstreamConfig::new(name, UpstreamKind::Scripted { scripts_dir: None })
    };
    let router = Router::new(vec![
        scripted("one", &["claude-*", "exact/name"]),
        scripted("two", &["exact/name", "other"]),
        scripted("rest", &["{a,b}?"]),
    ])
    .expect("good upstreams");
    let cases = [
        ("claude-opus-5-5", Some("one")),
        ("exact/name", Some("one")),
        ("other", Some("two")),
        ("b1", Some("rest")),
        ("c1", None),
    ];
    for (model, expected) in cases {
        let route = router.route(model);
        assert_eq!(route.as_deref().map(Upstream::name), expected, "{model}");
    }
    assert_eq!(router.models(), ["exact/name", "other"]);

    let duplicate = Router::new(vec![scripted("x", &["a"]), scripted("x", &["b"])]);
    assert_eq!(duplicate.err(), Some(ConfigError::DuplicateName { upstream: "x".to_owned() }));
    let empty = Router::new(vec![scripted("x", &[])]);
    assert_eq!(empty.err(), Some(ConfigError::NoModels { upstream: "x".to_owned() }));
}

#[test]
fn rules_are_those_of_the_name_that_goes_upstream_unless_told_otherwise() {
    let upstream = |name: &str, model: Option<&str>, like: Option<&str>| {
        let mut config = anthropic("https://host", KEY, None);
        config.name = name.to_owned();
        config.models = vec![format!("{name}-*")];
        config.model = model.map(str::to_owned);
        config.like = like.map_or(Like::default_of(&config.kind), |like| Like::Model(like.to_owned()));
        config
    };
    let mut local = upstream("local", None, None);
    local.kind = UpstreamKind::Scripted { scripts_dir: None };
    local.like = Like::default_of(&local.kind);
    let router = Router::new(vec![
        upstream("claude", None, None),
        upstream("renamed", Some("claude-opus-4-7"), None),
        upstream("told", Some("claude-opus-4-7"), Some("claude-haiku-4-5")),
        local,
    ])
    .expect("good upstreams");
    let cases = [
        ("claude-opus-5-5", Some("claude-opus-5-5")),
        ("renamed-x", Some("claude-opus-4-7")),
        ("told-x", Some("claude-haiku-4-5")),
        ("local-x", None),
        ("nobody", None),
    ];
    for (model, expected) in cases {
        assert_eq!(router.like(model), expected, "{model}");
    }
}
