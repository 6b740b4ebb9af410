//! YAML itself: syntax errors, anchors and merges, and input that means harm.

use proptest::prelude::*;

use super::{config, errors, parsed};

#[test]
fn syntax_errors_name_their_line() {
    for (text, line, part) in [
        ("instances: [a:1\nworkers: 2\n", 2, "not valid YAML: did not find expected"),
        ("instances: [a:1]\n\tworkers: 2\n", 2, "not valid YAML: found"),
        ("instances: [a:1]\nworkers: *w\n", 2, "not valid YAML: unknown anchor"),
        ("instances: [a:1]\nworkers: !two 2\n", 2, "the tag !two has no meaning here"),
        ("a: 1\n\"b\\nc\": { d: !two 2 }\n", 2, "b\\nc.d: the tag !two has no meaning here"),
        ("instances: [a:1]\nworkers: !!int two\n", 2, "not valid YAML"),
        ("instances: [a:1]\nworkers: \"2\n", 3, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 3, "a second YAML document begins; one document per file"),
        ("instances: [[::1]:9001]\n", 1, "; needed: quotes around addresses in brackets"),
        ("hosts: [*.a.example]\n", 1, "; needed: quotes around text that begins with *"),
    ] {
        let text = errors(text);
        assert!(text.starts_with(&format!("c.yaml:{line}: ")), "{text}");
        assert!(text.contains(part), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn one_document_with_markers_and_a_byte_order_mark_is_fine() {
    for text in ["---\ninstances: [a:1]\n", "instances: [a:1]\n...\n", "\u{feff}instances: [a:1]\n"]
    {
        config(text);
    }
}

#[test]
fn anchors_and_merge_keys_save_repetition() {
    let merged = config(
        "services:\n  a: &a\n    hosts: [a]\n    retry: &r { attempts: 2, budget: 5% }\n    \
         instances: [a:1]\n  b:\n    <<: *a\n    hosts: [b]\n    retry: { <<: [{}, *r], budget: 6% }\n",
    );
    let [a, b] = &merged.services[..] else { panic!("two services") };
    assert_eq!((&a.hosts[0][..], &b.hosts[0][..]), ("a", "b"));
    assert_eq!((b.versions[0].retry.attempts, b.versions[0].retry.budget), (2, 600));
    assert_eq!(a.versions[0].instances, b.versions[0].instances);
}

#[test]
fn a_problem_in_merged_keys_is_at_the_line_where_it_stands() {
    let text = "services:\n  a: &a\n    hosts: [a]\n    instances: [x]\n  b:\n    <<: *a\n    hosts: [b]\n";
    let text = errors(text);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("c.yaml:4: services.a.instances[0]: "), "{text}");
    assert!(lines[1].starts_with("c.yaml:4: services.b.instances[0]: "), "{text}");
    let nothing = errors("instances: [a:1]\n<<: 5\n");
    assert!(nothing.starts_with("c.yaml:2: <<: nothing to merge; allowed: a map"), "{nothing}");
}

#[test]
fn strings_may_take_any_yaml_form() {
    let folded =
        config("\"instances\":\n  - >-\n    a:1\n  - 'b:1'\n  - !!str c:1\n  - |-\n    d:1\n");
    let names: Vec<&str> =
        folded.services[0].versions[0].instances.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["a:1", "b:1", "c:1", "d:1"]);
}

#[test]
fn alias_bombs_are_refused() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 9].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    let wide = format!(
        "a: &a [{}]\nb: [{}]\n",
        vec!["x"; 20_000].join(", "),
        vec!["*a"; 20_000].join(", ")
    );
    for bomb in [&laughs[..], &wide, "a: &a [*a]\n", "a: &a { b: *a }\n", "a: &a [*a, *a, *a]\n"] {
        let text = errors(bomb);
        assert!(text.contains("not valid YAML"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}

#[test]
fn depth_is_bounded() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let text = format!("a: {}{}", open.repeat(500), close.repeat(500));
        assert!(errors(&text).contains("recursion limit exceeded"));
        let deep = errors(&format!("a: 1\nb: {}", open.repeat(1_000_000)));
        assert_eq!(deep, "c.yaml:2: more than 1000 brackets are open; allowed: 128 levels");
    }
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in "\\PC{0,200}") {
        let _ = parsed(&text);
    }

    #[test]
    fn no_yaml_like_text_makes_reading_panic(
        pieces in proptest::collection::vec(
            prop::sample::select(vec![
                "instances", "services", "versions", "affinity", "timeouts", ": ", ":", "\n", "\n  ",
                "- ", "[", "]", "{", "}", ", ", "&a ", "*a", "<<", "!t ", "!!int ", "---\n", "#", "|",
                "\"", "'", "null", "1", "-1", ".nan", "10s", "a:1", "? ", "%", "0x1F", "true",
            ]),
            0..60,
        ),
    ) {
        let _ = parsed(&pieces.concat());
    }
}
