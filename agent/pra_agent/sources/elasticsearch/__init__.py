"""Elasticsearch and OpenSearch through their Snapshot API, into S3 by themselves or through our own repository."""

from pra_agent.sources.elasticsearch.settings import ElasticsearchSettings

__all__ = ["ElasticsearchSettings"]
