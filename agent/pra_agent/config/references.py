"""References to secrets; they live in `model`, where sources find them too."""

from pra_agent.model.references import KmsReference, SecretField, SecretRef

__all__ = ["KmsReference", "SecretField", "SecretRef"]
