"""The configuration reference is made from the models; this keeps it current."""

from __future__ import annotations

from pathlib import Path

from comity.config.schema import reference_page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def test_the_configuration_reference_says_what_the_models_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_page(), (
        "run: comity config schema --reference > docs/reference/configuration.md"
    )
