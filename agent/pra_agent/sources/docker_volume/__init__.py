"""Docker volumes: their content, and what is needed to make the containers that use them again."""

from pra_agent.sources.docker_volume.settings import DockerVolumeSettings

__all__ = ["DockerVolumeSettings"]
