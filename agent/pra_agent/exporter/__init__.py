"""The exporter: metrics for Prometheus and a status page, both read from the journal and the configured jobs."""
