//! The parts of the Kubernetes API that manifests here use: which kinds there are, and which fields each
//! thing has. A field that is misspelt or misplaced is refused, as `kubectl apply --validate=strict` would.

use serde_json::Value;

/// Kind and version, and the shape of the object.
const KINDS: [(&str, &str, &str); 15] = [
    ("v1", "Namespace", "namespace"),
    ("v1", "Service", "service"),
    ("v1", "ServiceAccount", "account"),
    ("v1", "ConfigMap", "data"),
    ("v1", "Secret", "data"),
    ("apps/v1", "Deployment", "workload"),
    ("apps/v1", "StatefulSet", "workload"),
    ("policy/v1", "PodDisruptionBudget", "budget"),
    ("autoscaling/v2", "HorizontalPodAutoscaler", "autoscaler"),
    ("networking.k8s.io/v1", "NetworkPolicy", "policy"),
    ("networking.k8s.io/v1", "Ingress", "ingress"),
    ("rbac.authorization.k8s.io/v1", "Role", "role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "binding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "role"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "binding"),
];

/// Each shape's fields; behind a `>` stands the shape of a field, whether of one or of a list of them. What
/// has none may be anything.
const SHAPES: [(&str, &str); 48] = [
    ("meta", "name namespace labels annotations"),
    ("namespace", ""),
    ("account", "automountServiceAccountToken imagePullSecrets"),
    ("data", "data stringData binaryData type immutable"),
    ("role", "rules>rule"),
    ("rule", "apiGroups resources resourceNames verbs"),
    ("binding", "roleRef>ref subjects>subject"),
    ("ref", "apiGroup kind name"),
    ("subject", "apiGroup kind name namespace"),
    ("service", "spec>service spec"),
    (
        "service spec",
        "type clusterIP selector ports>service port externalTrafficPolicy internalTrafficPolicy \
         publishNotReadyAddresses sessionAffinity sessionAffinityConfig loadBalancerClass",
    ),
    ("service port", "name port targetPort protocol appProtocol nodePort"),
    ("workload", "spec>workload spec"),
    (
        "workload spec",
        "replicas revisionHistoryLimit strategy>strategy updateStrategy>strategy minReadySeconds \
         progressDeadlineSeconds selector>selector template>template serviceName podManagementPolicy",
    ),
    ("strategy", "type rollingUpdate>rolling"),
    ("rolling", "maxSurge maxUnavailable partition"),
    ("selector", "matchLabels matchExpressions"),
    ("template", "metadata>meta spec>pod"),
    (
        "pod",
        "serviceAccountName automountServiceAccountToken terminationGracePeriodSeconds \
         securityContext>pod security topologySpreadConstraints>spread containers>container \
         initContainers>container volumes>volume nodeSelector tolerations affinity hostNetwork dnsPolicy \
         priorityClassName imagePullSecrets enableServiceLinks",
    ),
    (
        "pod security",
        "runAsNonRoot runAsUser runAsGroup fsGroup fsGroupChangePolicy supplementalGroups \
         seccompProfile>seccomp sysctls>pair",
    ),
    ("seccomp", "type localhostProfile"),
    ("pair", "name value"),
    ("spread", "maxSkew topologyKey whenUnsatisfiable labelSelector>selector minDomains"),
    (
        "container",
        "name image imagePullPolicy command args ports>container port env>variable envFrom \
         startupProbe>probe readinessProbe>probe livenessProbe>probe lifecycle>lifecycle \
         resources>resources securityContext>container security volumeMounts>mount workingDir",
    ),
    ("container port", "name containerPort protocol hostPort hostIP"),
    ("variable", "name value valueFrom"),
    (
        "probe",
        "httpGet>http tcpSocket exec grpc initialDelaySeconds periodSeconds timeoutSeconds \
         failureThreshold successThreshold terminationGracePeriodSeconds",
    ),
    ("http", "path port host scheme httpHeaders"),
    ("lifecycle", "preStop>handler postStart>handler"),
    ("handler", "exec httpGet>http sleep>sleep"),
    ("sleep", "seconds"),
    ("resources", "requests>quantities limits>quantities"),
    ("quantities", "cpu memory ephemeral-storage"),
    (
        "container security",
        "allowPrivilegeEscalation privileged readOnlyRootFilesystem capabilities>capabilities \
         runAsNonRoot runAsUser runAsGroup seccompProfile>seccomp",
    ),
    ("capabilities", "add drop"),
    ("mount", "name mountPath readOnly subPath"),
    ("volume", "name configMap>map volume secret>secret volume emptyDir>empty projected"),
    ("map volume", "name items defaultMode optional"),
    ("secret volume", "secretName items defaultMode optional"),
    ("empty", "medium sizeLimit"),
    ("budget", "spec>budget spec"),
    ("budget spec", "minAvailable maxUnavailable selector>selector unhealthyPodEvictionPolicy"),
    ("autoscaler", "spec>autoscaler spec"),
    ("autoscaler spec", "scaleTargetRef minReplicas maxReplicas metrics behavior"),
    ("policy", "spec>policy spec"),
    ("policy spec", "podSelector>selector policyTypes ingress egress"),
    ("ingress", "spec>ingress spec"),
    ("ingress spec", "ingressClassName defaultBackend tls rules"),
];

/// What is wrong with an object by its kind and its fields.
pub fn problems(object: &Value) -> Vec<String> {
    let of = |field: &str| object[field].as_str().unwrap_or_default();
    let (version, kind) = (of("apiVersion"), of("kind"));
    let Some((.., shape)) = KINDS.iter().find(|known| (known.0, known.1) == (version, kind)) else {
        return vec![format!("{version:?} {kind:?} is no kind that is known here")];
    };
    let mut problems = Vec::new();
    let mut own = object.clone();
    for common in ["apiVersion", "kind", "automountServiceAccountToken"] {
        own.as_object_mut().expect("a map").remove(common);
    }
    let metadata = own.as_object_mut().expect("a map").remove("metadata").unwrap_or_default();
    if metadata["name"].as_str().is_none_or(str::is_empty) {
        problems.push("metadata.name: missing".to_owned());
    }
    look("meta", &metadata, "metadata", &mut problems);
    look(shape, &own, "", &mut problems);
    problems
}

fn look(shape: &str, value: &Value, path: &str, problems: &mut Vec<String>) {
    let fields = SHAPES.iter().find(|(name, _)| *name == shape);
    let fields = fields.unwrap_or_else(|| panic!("no shape {shape}")).1;
    match value {
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                look(shape, value, &format!("{path}[{index}]"), problems);
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                match field(fields, key) {
                    None => problems.push(format!("{path}: no field of a {shape}")),
                    Some("") => {}
                    Some(inner) => look(inner, value, &path, problems),
                }
            }
        }
        _ => problems.push(format!("{path}: must be a map")),
    }
}

/// The shape of a field; nothing if there is no such field. Names of shapes may have a space.
fn field<'a>(fields: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = fields;
    while !rest.is_empty() {
        let end = rest.find([' ', '>']).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        let (shape, next) = match behind.strip_prefix('>') {
            None => ("", behind.trim_start()),
            Some(behind) => {
                let longest = |name: &&str| {
                    behind
                        .strip_prefix(name)
                        .is_some_and(|left| left.is_empty() || left.starts_with(' '))
                };
                let known = SHAPES.iter().map(|(name, _)| *name).filter(longest);
                let shape = known.max_by_key(|name| name.len()).expect("a shape behind >");
                (shape, behind[shape.len()..].trim_start())
            }
        };
        if name == key {
            return Some(shape);
        }
        rest = next;
    }
    None
}

#[test]
fn what_is_misspelt_or_misplaced_is_found() {
    let told = |text: &str| problems(&serde_yaml::from_str(text).unwrap());
    let probe = "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: a }\nspec: { template: { spec: { \
                 containers: [{ name: a }, { name: b, startupProbe: { httpGet: { pth: / } } }] } } }\n";
    let problem = ".spec.template.spec.containers[1].startupProbe.httpGet.pth: no field of a http";
    assert_eq!(told(probe), [problem]);
    assert_eq!(told(&probe.replace("pth", "path")), [""; 0]);
    let misplaced =
        told(&probe.replace("pth", "path").replace("spec: { template", "spec: { x: 1, template"));
    assert_eq!(misplaced, [".spec.x: no field of a workload spec"]);
    assert_eq!(told(&probe.replace("apps/v1", "v1")).len(), 1);
    assert_eq!(told("apiVersion: v1\nkind: Secret\nmetadata: {}\n"), ["metadata.name: missing"]);
}
