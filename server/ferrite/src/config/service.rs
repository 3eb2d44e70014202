//! Resource attributes that have keys of their own: who sets the attribute sets the key.

use ferrite_node::config::TelemetryConfig;

const SERVICE_NAME: &str = "service.name";
const SERVICE_VERSION: &str = "service.version";
const SERVICE_NAMESPACE: &str = "service.namespace";

/// What one source's attributes say of the service goes over the sources before it, unless the source has set the key itself.
pub(super) fn adopt(before: &TelemetryConfig, telemetry: &mut TelemetryConfig) {
    let attributes = &mut telemetry.resource_attributes;
    if let Some(name) = attributes.remove(SERVICE_NAME).filter(|_| telemetry.service_name == before.service_name) {
        telemetry.service_name = name;
    }
    if let Some(version) =
        attributes.remove(SERVICE_VERSION).filter(|_| telemetry.service_version == before.service_version)
    {
        telemetry.service_version = version;
    }
    if let Some(namespace) =
        attributes.remove(SERVICE_NAMESPACE).filter(|_| telemetry.service_namespace == before.service_namespace)
    {
        telemetry.service_namespace = Some(namespace);
    }
}
