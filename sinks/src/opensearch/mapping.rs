//! What this program's version maps, and what is there of it: in the template that all versions share, and in an index that an earlier
//! one has made.

use serde_json::Value;

/// Whether the one component template that an answer shows maps all that ours does, in the same way.
pub fn has_all(body: &[u8], ours: &Value) -> bool {
    let shown: Value = serde_json::from_slice(body).unwrap_or_default();
    let there = shown.pointer("/component_templates/0/component_template/template/mappings");
    let ours = ours.pointer("/template/mappings");
    there.zip(ours).is_some_and(|(there, ours)| covers(there, ours))
}

/// A store may give any value back as a text.
fn covers(there: &Value, ours: &Value) -> bool {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match (there, ours) {
        (Value::Object(there), Value::Object(ours)) => {
            ours.iter().all(|(name, ours)| there.get(name).is_some_and(|there| covers(there, ours)))
        }
        _ => text(there) == text(ours),
    }
}

/// Whether the one index whose mapping an answer shows lacks some of these fields. Of what type those are that it has doesn't
/// matter: none can be changed.
pub fn lacks(body: &[u8], fields: &Value) -> bool {
    let shown: Value = serde_json::from_slice(body).unwrap_or_default();
    let index = shown.as_object().and_then(|indices| indices.values().next());
    index.is_some_and(|index| is_without_some(index.pointer("/mappings/properties"), fields))
}

/// Whether the index that an answer simulates would have all of these fields.
pub fn would_have(body: &[u8], fields: &Value) -> bool {
    let shown: Value = serde_json::from_slice(body).unwrap_or_default();
    // Some tell the mapping's one type, which has no other name.
    let there = ["/template/mappings/properties", "/template/mappings/_doc/properties"];
    let there = there.iter().find_map(|place| shown.pointer(place));
    there.is_some() && !is_without_some(there, fields)
}

fn is_without_some(there: Option<&Value>, fields: &Value) -> bool {
    fields.as_object().into_iter().flatten().any(|(name, field)| {
        let Some(there) = there.and_then(|there| there.get(name)) else { return true };
        let inner = ["properties", "fields"].into_iter();
        inner
            .filter_map(|inner| Some((there.get(inner), field.get(inner)?)))
            .any(|(there, fields)| is_without_some(there, fields))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields() -> Value {
        json!({
            "user": { "properties": { "name": { "type": "keyword", "ignore_above": 1024 } } },
            "line": { "type": "keyword", "fields": { "text": { "type": "text" } } },
        })
    }

    #[test]
    fn a_template_is_whole_where_it_maps_all_that_ours_does() {
        let ours =
            json!({ "template": { "mappings": { "dynamic": false, "properties": fields() } }, "version": 1 });
        let whole = |mappings: Value| {
            let template = json!({ "template": { "mappings": mappings }, "version": 1 });
            let shown = json!({ "component_templates": [{ "name": "x", "component_template": template }] });
            has_all(shown.to_string().as_bytes(), &ours)
        };
        let mut mappings = json!({ "dynamic": "false", "properties": fields() });
        assert!(whole(mappings.clone()));
        mappings["properties"]["of_a_later_version"] = json!({ "type": "long" });
        assert!(whole(mappings.clone()), "what another version has added stays");
        mappings["properties"]["user"]["properties"]["name"]["ignore_above"] = json!("1024");
        assert!(whole(mappings.clone()));
        mappings["properties"]["user"]["properties"]["name"]["type"] = json!("text");
        assert!(!whole(mappings.clone()));
        mappings["properties"] = json!({ "line": fields()["line"] });
        assert!(!whole(mappings));
        assert!(!has_all(b"<html>", &ours) && !has_all(b"{}", &ours));
    }

    #[test]
    fn an_index_lacks_what_a_later_version_maps() {
        let lacking = |fields_there: Value| {
            let shown =
                json!({ ".ds-x-000001": { "mappings": { "dynamic": "false", "properties": fields_there } } });
            lacks(shown.to_string().as_bytes(), &fields())
        };
        assert!(!lacking(fields()));
        let mut more = fields();
        more["of_a_later_version"] = json!({ "type": "long" });
        more["user"]["properties"]["name"]["type"] = json!("text");
        assert!(!lacking(more));
        let mut less = fields();
        less["line"] = json!({ "type": "keyword" });
        assert!(lacking(less), "a field of a field");
        assert!(lacking(json!({ "user": { "type": "keyword" }, "line": fields()["line"] })));
        assert!(lacking(json!({ "line": fields()["line"] })) && lacking(json!({})));
        assert!(lacks(br#"{"x":{"mappings":{}}}"#, &fields()));
        assert!(!lacks(b"{}", &fields()) && !lacks(b"<html>", &fields()), "there is no such index");
    }

    #[test]
    fn what_the_next_index_would_have_is_told_by_simulating_it() {
        let would = |mappings: Value| {
            let shown = json!({ "overlapping": [], "template": { "settings": {}, "mappings": mappings } });
            would_have(shown.to_string().as_bytes(), &fields())
        };
        assert!(would(json!({ "dynamic": "false", "properties": fields() })));
        assert!(would(json!({ "_doc": { "properties": fields() } })));
        let mut less = fields();
        less["user"] = json!({ "type": "keyword" });
        assert!(!would(json!({ "properties": less })), "by another's template");
        assert!(!would(json!({})));
        assert!(!would_have(br#"{"template":null,"overlapping":null}"#, &fields()), "there is no template");
        assert!(!would_have(b"<html>", &fields()));
    }
}
