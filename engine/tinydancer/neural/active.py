"""The classifier that answers where none was trained."""

from __future__ import annotations

from tinydancer.neural.classifier import RouteClassifier
from tinydancer.neural.default_model import builtin


class DefaultClassifier:
    """The shipped classifier, under the name that answers give it. It is read when first asked."""

    name = "default"

    @property
    def classifier(self) -> RouteClassifier:
        """The classifier itself. Raises NotReady where its file is missing or damaged."""
        return builtin()
