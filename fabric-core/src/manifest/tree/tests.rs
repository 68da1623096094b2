//! Bounds and refusals of the readers.

use proptest::prelude::*;

use super::*;

fn refused(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

fn value(text: &str) -> Value {
    read(&format!("- {text}")).unwrap().into_iter().map(|(_, node)| node.value).next().map_or(Value::Null, |list| {
        let Value::List(nodes) = list else { panic!("{list:?}") };
        nodes[0].value.clone()
    })
}

#[test]
fn scalars() {
    let text = |text: &str| Value::Text(text.to_owned());
    let number = |text: &str| Value::OtherNumber(text.to_owned());
    let cases = [
        ("80", Value::Int(80)),
        ("-1", Value::Int(-1)),
        ("\"80\"", text("80")),
        ("true", Value::Bool(true)),
        ("yes", text("yes")),
        ("~", Value::Null),
        ("''", text("")),
        ("010", number("010")),
        ("1.5", number("1.5")),
        ("0x50", text("0x50")),
        ("10.0.0.0/8", text("10.0.0.0/8")),
        ("10.1.2.3", text("10.1.2.3")),
        ("1:2", text("1:2")),
        ("99999999999999999999", number("99999999999999999999")),
    ];
    for (given, expected) in cases {
        assert_eq!(value(given), expected, "{given}");
    }
}

#[test]
fn lines_and_documents_are_counted() {
    let documents = read("---\n---\na: 1\n---\n# nothing\n---\nb:\n  - c: 2\n").unwrap();
    let numbers: Vec<usize> = documents.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [2, 4]);
    let Value::Map(entries) = &documents[1].1.value else { panic!() };
    let Value::List(items) = &entries[0].node.value else { panic!() };
    assert_eq!((entries[0].line, items[0].line), (7, 8));
}

#[test]
fn what_hides_or_multiplies_is_refused() {
    let cases = [
        (
            "a: &x 1\n",
            "document 1, line 1: anchors are not supported in manifests; write the value out where it is used",
        ),
        (
            "a: 1\nb: !!str 2\n",
            "document 1, line 2: tags are not supported in manifests; write the value out where it is used",
        ),
        (
            "a: 1\n<<: {}\n",
            "document 1, line 2: merge keys are not supported in manifests; write the value out where it is used",
        ),
        ("a: {b: [1, {c: 1, c: 2}]}\n", "document 1, line 1: a.b[1].c is given twice; keep one of them"),
        ("{\"a\": {\"b\": 1, \"b\": 2}}", "document 1: b is given twice; keep one of them"),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(text), expected);
    }
    // An alias without its anchor is not even YAML; with it, the anchor is refused first.
    assert!(refused("a: *x\n").starts_with("document 1, line 1: "));
}

#[test]
fn bombs_are_refused_quickly() {
    assert!(refused(&"[".repeat(100_000)).contains("recursion limit exceeded"));
    assert!(refused(&"{\"a\":".repeat(100)).starts_with("document 1"));
    let nested = format!("{}1{}", "{\"a\":".repeat(40), "}".repeat(40));
    assert!(refused(&nested).contains("nested deeper than 32"));
    assert!(refused(&"- ".repeat(100_000)).contains("nested deeper than 32"));
    assert!(refused(&"a\n".repeat(MAX_TEXT_BYTES)).contains("at most 1048576"));
    assert!(refused(&"--- 1\n".repeat(MAX_DOCUMENTS + 1)).contains("more than 1000 documents"));
    assert!(refused(&"- 1\n".repeat(MAX_VALUES + 1)).contains("more than 200000 values"));
    assert!(refused(&format!("{}: 1", "k".repeat(MAX_KEY_BYTES + 1))).contains("513 bytes"));
    let laughs = "a: &a [lol,lol]\nb: &b [*a,*a]\nc: [*b,*b]\n";
    assert!(refused(laughs).contains("anchors are not supported"));
}

#[test]
fn json_escapes_are_read() {
    let (_, node) = read(r#"{"a": "\ud83d\ude00\/"}"#).unwrap().remove(0);
    let Value::Map(entries) = node.value else { panic!() };
    assert_eq!(entries[0].node.value, Value::Text("😀/".to_owned()));
}

#[test]
fn flow_yaml_that_is_not_json_is_read_too() {
    let (_, node) = read("{a: b}").unwrap().remove(0);
    assert!(matches!(node.value, Value::Map(_)));
}

proptest! {
    #[test]
    fn no_text_panics(text in "[-\\[\\]{}:,&*!|>'\"%@`#?a-c0-9 \n\t~<.]{0,120}") {
        let _ = read(&text);
    }

    #[test]
    fn no_unicode_panics(text in "\\PC{0,120}") {
        let _ = read(&text);
    }
}
