//! What a request is checked for before anything is pulled, and what follows from it.

use super::*;

fn request(base: &str, dest: &str) -> Request {
    Request {
        destinations: vec![dest.into()],
        ..Request::new(base)
    }
}

#[test]
fn the_version_comes_from_the_tag_when_it_is_semantic() {
    let checked = request("debian:12", "oci:out:v1.2.3").validate().unwrap();
    assert_eq!(checked.version.to_string(), "v1.2.3");
}

#[test]
fn a_tag_that_is_no_version_is_refused_with_both_ways_out() {
    let error = request("debian:12", "oci:out:latest")
        .validate()
        .unwrap_err()
        .render_text();
    assert!(
        error.contains("`--version") && error.contains("as its tag"),
        "{error}"
    );
}

#[test]
fn malformed_versions_are_usage_errors() {
    for bad in ["latest", "1.0.0rc1", ""] {
        let error = Request {
            version: Some(bad.into()),
            ..request("debian:12", "oci:out")
        }
        .validate()
        .unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{bad}");
    }
}

#[test]
fn a_recipe_survives_the_round_trip() {
    let request = Request {
        skip_steps: vec!["cleanup".into()],
        version: Some("v1".into()),
        ..request("debian:12", "oci:out")
    };
    assert_eq!(
        Request::from_yaml(&request.to_yaml().unwrap(), "r").unwrap(),
        request
    );
}

#[test]
fn a_recipe_may_use_the_names_of_the_options_and_is_written_in_one_form() {
    let text = "base: debian:12\ndest: oci:out:v1\nskip-step: cleanup\nprovider: [k3s]\nwith: vim\nsecret:\n- id=rhsm,src=/x\n";
    let request = Request::from_yaml(text, "r").unwrap();
    let expected = Request {
        skip_steps: vec!["cleanup".into()],
        providers: vec!["k3s".into()],
        with: vec!["vim".into()],
        secrets: vec!["id=rhsm,src=/x".into()],
        ..self::request("debian:12", "oci:out:v1")
    };
    assert_eq!(request, expected);
    let written = request.to_yaml().unwrap();
    assert!(
        written.contains("\nskip-steps:") && written.contains("\ndestinations:"),
        "{written}"
    );
}

#[test]
fn a_key_given_by_both_of_its_names_is_refused_with_both_and_the_line() {
    for (name, other) in TWO_NAMES {
        for (first, second) in [(name, other), (other, name)] {
            assert!(Request::from_yaml(&format!("{first}: [a]"), "r").is_ok());
            let text = format!("base: x\n{first}: [a]\n{second}: [b]\n");
            let error = Request::from_yaml(&text, "r").unwrap_err().render_text();
            assert!(
                error.contains("line 3") && error.contains(&format!("`{second}`")),
                "{error}"
            );
            assert!(error.contains(&format!("as `{first}`")), "{error}");
        }
    }
}

#[test]
fn an_unknown_recipe_key_is_an_error() {
    assert!(Request::from_yaml("base: x\nvresion: v1\n", "r").is_err());
    let error = Request::from_yaml("qqqqqqq: 1\n", "r").unwrap_err();
    let said = error.render_text();
    assert!(said.contains("known: base, "), "{said}");
    assert!(!said.contains("expected"), "the program's own key: {said}");
}
