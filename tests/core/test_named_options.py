"""Names with options and names with variants."""

from __future__ import annotations

import pytest

from benchmark.core.errors import UserError
from benchmark.core.named_options import (
    NamedOptions,
    base_name,
    method_name,
    parse_backbone,
    parse_named_options,
    split_method,
    split_option,
)


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("tiny", "tiny", {}),
        ("tiny:", "tiny", {}),
        ("tiny:bias=0.9,size=3", "tiny", {"bias": "0.9", "size": "3"}),
        (" tiny : bias = 0.9 , size=3 ,", "tiny", {"bias": "0.9", "size": "3"}),
        ("resnet18:weights=a=b", "resnet18", {"weights": "a=b"}),
    ],
)
def test_named_options_are_parsed(text: str, name: str, options: dict[str, str]) -> None:
    parsed = parse_named_options(text)
    assert parsed == NamedOptions(name, options)
    assert parse_named_options(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("convnet:width=2", "convnet", {"width": "2"}),
        ("timm:resnet18", "timm:resnet18", {}),
        ("timm:resnet18.a1_in1k:", "timm:resnet18.a1_in1k", {}),
        (
            " timm : vit : file=C:/a=b.pth , side=64",
            "timm:vit",
            {"file": "C:/a=b.pth", "side": "64"},
        ),
        ("vit_b_16:file=C:/a.pth", "vit_b_16", {"file": "C:/a.pth"}),
    ],
)
def test_backbones_are_parsed(text: str, name: str, options: dict[str, str]) -> None:
    parsed = parse_backbone(text)
    assert parsed == NamedOptions(name, options)
    assert parse_backbone(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", "''"),
        (":bias=1", "no name"),
        ("tiny:bias", "'bias'"),
        ("tiny:=1", "'=1'"),
        ("tiny:bias=", "'bias='"),
        ("tiny:bias=1,bias=2", "'bias' twice"),
    ],
)
def test_other_forms_are_errors(text: str, quoted: str) -> None:
    with pytest.raises(UserError, match=quoted):
        parse_named_options(text)


def test_an_option_has_a_name_and_may_have_an_empty_value() -> None:
    assert split_option(" lr = 1e-3 ") == ("lr", "1e-3")
    assert split_option("test=") == ("test", "")
    assert split_option("weights=a=b") == ("weights", "a=b")
    assert split_option("lr") is None
    assert split_option(" =1") is None


@pytest.mark.parametrize(("algorithm", "variant"), [("cdan", "cdann"), ("erm", "")])
def test_a_method_is_an_algorithm_and_a_variant(algorithm: str, variant: str) -> None:
    method = method_name(algorithm, variant)
    assert split_method(method) == (algorithm, variant)
    assert base_name(method) == algorithm
