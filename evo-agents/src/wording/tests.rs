//! What is asked, and what of an answer is used.

use serde_json::json;

use super::*;

/// A reading operation that answers with a list of objects.
pub(super) fn operation(path: &str, operation_id: Option<&str>, description: &str) -> Operation {
    serde_json::from_value(json!({
        "method": "GET",
        "path": path,
        "operation_id": operation_id,
        "description": match description {
            "" => format!("Calls GET {path}."),
            text => text.to_owned(),
        },
        "url": format!("{{server}}{path}"),
        "server": "shop",
        "parameters": [
            {"name": "shop_id", "input": "shop_id", "place": "path", "required": true, "type": "string"},
        ],
        "answer": {"success": [200], "status": [200], "outputs": []},
    }))
    .unwrap()
}
