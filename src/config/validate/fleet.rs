//! `fleet`: what is shared with other balancers, and by which etcd.

use super::discovery::etcd_keys;
use super::names::is_name;
use crate::config::node::Node;
use crate::config::types::Fleet;

pub(super) fn fleet(node: &Node<'_>) -> Option<Fleet> {
    let mut fields = node.fields("fleet")?;
    let etcd = fields.take("etcd");
    if etcd.is_none() {
        fields.missing("etcd", "{ endpoints, prefix }");
    }
    let name = fields.take("name").map_or(Some(None), |node| name(&node));
    let keyring = fields.boolean("keyring", false);
    let config = fields.boolean("config", false);
    fields.finish();
    let mut keys = etcd_keys(&etcd?)?;
    // Else the keys of a fleet `a` would be among those of a fleet `ab`, or the other way round.
    if !keys.prefix.ends_with('/') {
        keys.prefix.push('/');
    }
    Some(Fleet { keys, name: name?, keyring, config })
}

fn name(node: &Node<'_>) -> Option<Option<String>> {
    let allowed = "1 to 63 letters, digits and . _ - : [ ], or auto for the host's name";
    node.parsed(allowed, |text| match text {
        Fleet::AUTO => Some(None),
        name => is_name(name).then(|| Some(name.to_owned())),
    })
}
