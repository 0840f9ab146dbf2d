"""As much of the Block Storage API v3 as manages services, service clusters and failover between sites: what `cinder`,
`openstack volume service|host`, `openstack block storage cluster` and the SDK speak. No volumes."""
