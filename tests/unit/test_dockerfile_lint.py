"""What a valid Dockerfile is warned of, and how that is turned off, or into an error."""

import pytest

from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.parse import parse


def rules(text: str) -> list[str]:
    """The warnings as `LINE RULE`."""
    return [
        f"{line} {rule}" for _, line, rule, _ in (warning.split(":", 3) for warning in map(spaced, parse(text.encode()).warnings))
    ]


def spaced(warning: str) -> str:
    return warning.replace(": ", ":")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a AS b\nRUN x\n", []),
        ("FROM a as b", ["1 FromAsCasing"]),
        ("from a as b", []),
        ("FROM a AS Bc", ["1 StageNameCasing"]),
        ("FROM a AS b\nFROM c AS B\n", ["2 DuplicateStageName", "2 StageNameCasing"]),
        ("FROM a AS scratch", ["1 ReservedStageName"]),
        ("FROM --platform=linux/arm64 a", ["1 FromPlatformFlagConstDisallowed"]),
        ("FROM --platform=linux/arm64 a AS b-arm64", []),
        ("FROM --platform=$BUILDPLATFORM a", []),
        ("FROM a\nrun x\nRun y", ["2 ConsistentInstructionCasing", "3 ConsistentInstructionCasing"]),
        ("from a\nrun x\nUSER y", ["3 ConsistentInstructionCasing"]),
        ("FROM a\nRUN x \\\n\n y", ["2 NoEmptyContinuation"]),
        ("FROM a\nCMD x\n", ["2 JSONArgsRecommended"]),
        ("FROM a\nENTRYPOINT x\n", ["2 JSONArgsRecommended"]),
        ('FROM a\nSHELL ["x"]\nCMD x\n', []),
        ('FROM a\nCMD ["x"]\nCMD ["y"]\n', ["2 MultipleInstructionsDisallowed"]),
        ("FROM a\nHEALTHCHECK NONE\nHEALTHCHECK CMD x\n", ["2 MultipleInstructionsDisallowed"]),
        ("FROM a\nMAINTAINER x", ["2 MaintainerDeprecated"]),
        ("FROM a\nENV x y\nLABEL z w", ["2 LegacyKeyValueFormat", "3 LegacyKeyValueFormat"]),
        ("FROM a\nENV x=y\nLABEL z=w", []),
        ("ARG TOKEN\nFROM a\nENV DB_PASSWORD=x\nARG API_KEY secret_of", [
            "1 SecretsUsedInArgOrEnv", "3 SecretsUsedInArgOrEnv", "4 SecretsUsedInArgOrEnv", "4 SecretsUsedInArgOrEnv"]),
        ("FROM a\nENV MONKEY=x PASSWORD_FILE=y PUBLIC_KEY=z TOKENS=1", []),
        ("FROM a\nEXPOSE 80/TCP 127.0.0.1:80:80 $x/UDP", ["2 ExposeInvalidFormat", "2 ExposeProtoCasing"]),
        ("FROM a\nWORKDIR b\nWORKDIR /c\nWORKDIR d", ["2 WorkdirRelativePath"]),
        ("FROM a AS b\nWORKDIR /c\nFROM b\nWORKDIR d\nFROM e\nWORKDIR f", ["6 WorkdirRelativePath"]),
        ("FROM a\nWORKDIR $b", []),
        # turned off
        ("# check=skip=all\nFROM a as B\nCMD x", []),
        ("# check=skip=FromAsCasing, JSONArgsRecommended\nFROM a as B\nCMD x", ["2 StageNameCasing", "3 JSONArgsRecommended"]),
        ("# check=skip=FromAsCasing,JSONArgsRecommended\nFROM a as B\nCMD x", ["2 StageNameCasing"]),
        ("# check=experimental=all;error=false\nFROM a\nCMD x", ["3 JSONArgsRecommended"]),
        ("FROM a\n# check=skip=JSONArgsRecommended\nCMD x\nENTRYPOINT y", ["4 JSONArgsRecommended"]),
        ("FROM a\n# check=skip=\n# check=nonsense\nCMD x", ["4 JSONArgsRecommended"]),
    ],
)  # fmt: skip
def test_a_dockerfile_is_warned_of_what_docker_warns_of(text: str, expected: list[str]):
    assert rules(text) == expected


def test_a_warning_has_its_file_its_line_and_a_reason():
    (warning,) = parse(b"FROM a\n\nMAINTAINER x", file_name="x/Dockerfile").warnings
    assert warning.startswith("x/Dockerfile:3: MaintainerDeprecated: ")
    assert "LABEL" in warning


def test_warnings_are_an_error_where_the_file_says_so():
    assert parse(b"# check=error=true\nFROM a").warnings == ()
    with pytest.raises(DockerfileError, match=r"MaintainerDeprecated.*and 1 more") as caught:
        parse(b"# check=error=true\nFROM a\nMAINTAINER x\nCMD y")
    assert caught.value.line == 3
    assert len(parse(b"# check=error=true;skip=MaintainerDeprecated\nFROM a\nMAINTAINER x").warnings) == 0
