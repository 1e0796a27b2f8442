"""Names of images, and what an image's author may wish."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import ImageError, MinicontainerError, UsageError
from minicontainer.image import config as config_module
from minicontainer.image.config import ImageConfig, from_json, to_json
from minicontainer.image.instructions import apply
from minicontainer.image.ready import from_ready, to_ready
from minicontainer.image.reference import parse
from minicontainer.image.sources import architecture

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "short", "domain", "path"),
    [
        ("alpine", "alpine:latest", "docker.io", "library/alpine"),
        ("alpine:3.20", "alpine:3.20", "docker.io", "library/alpine"),
        ("docker.io/alpine", "alpine:latest", "docker.io", "library/alpine"),
        ("docker.io/library/alpine:3", "alpine:3", "docker.io", "library/alpine"),
        ("index.docker.io/library/alpine", "alpine:latest", "docker.io", "library/alpine"),
        ("someone/tool", "someone/tool:latest", "docker.io", "someone/tool"),
        ("localhost/tool", "localhost/tool:latest", "localhost", "tool"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000", "a/b"),
        ("ghcr.io/a/b", "ghcr.io/a/b:latest", "ghcr.io", "a/b"),
        ("a__b/c.d-e--f", "a__b/c.d-e--f:latest", "docker.io", "a__b/c.d-e--f"),
        (f"alpine@{DIGEST}", f"alpine@{DIGEST}", "docker.io", "library/alpine"),
        (f"alpine:3@{DIGEST}", f"alpine:3@{DIGEST}", "docker.io", "library/alpine"),
    ],
)
def test_names(text: str, short: str, domain: str, path: str):
    found = parse(text)
    assert (str(found), found.domain, found.path) == (short, domain, path)
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "a:", ":a", "a b", "Alpine", "../etc", "a/../b", "a//b", "/a", "a/", "-a", "a-",
        "a___b", "a..b", "a:" + "x" * 129, "a" * 201, "a:-x", "a:.x", "a@sha256:12", "a@", "a\0b",
        "a\nb", "a%2Fb", "@" + DIGEST, "host:port/a", "-x.y/a", "é", "a:é", "x:1:2", "a.b:٣/c",
    ],
)  # fmt: skip
def test_no_names(text: str):
    with pytest.raises(UsageError):
        parse(text)


@given(st.text(alphabet="ab0AB._-/:@% \n\0é", max_size=12))
def test_a_name_never_leads_out_of_the_store(text: str):
    try:
        name = str(parse(text))
    except UsageError:
        return
    file = name.replace("/", "%2F")
    assert "/" not in file and "\0" not in file and not file.startswith((".", "@"))
    assert len(file.encode()) < 255 or len(text) > 200


@pytest.mark.parametrize(
    ("platform", "arch"),
    [("linux/amd64", "amd64"), ("linux/arm64/v8", "arm64"), ("arm64", "arm64"),
     ("linux/x86_64", "amd64"), ("linux/aarch64", "arm64"), ("linux/arm/v7", "arm")],
)  # fmt: skip
def test_platforms(platform: str, arch: str):
    assert architecture(platform) == arch


@pytest.mark.parametrize("platform", ["windows/amd64", "linux/z80", "amd64/linux", "/", "linux//"])
def test_no_platforms(platform: str):
    with pytest.raises(UsageError):
        architecture(platform)


# ---- configuration

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=9)
WORDS = st.lists(TEXT, max_size=3).map(tuple)
CONFIGS = st.builds(
    ImageConfig,
    env=st.lists(TEXT.map(lambda text: "A=" + text), max_size=3).map(tuple),
    entrypoint=WORDS,
    cmd=WORDS,
    working_dir=TEXT.map(lambda text: "/" + text.replace("..", "")),
    user=TEXT,
    volumes=st.lists(TEXT.map(lambda t: "/" + t.replace(".", "")), max_size=3, unique=True).map(
        lambda found: tuple(sorted(found))
    ),
    labels=st.dictionaries(TEXT, TEXT, max_size=3).map(lambda d: tuple(sorted(d.items()))),
    stop_signal=TEXT,
    architecture=TEXT,
    created=TEXT,
)


@given(CONFIGS, st.integers(0, 1 << 60))
def test_what_run_reads_is_what_the_image_says(config: ImageConfig, size: int):
    """``ready`` is derived from config.json and must never say anything else."""
    document = to_json(config, (DIGEST, DIGEST))
    found, diff_ids = from_json(document)
    assert (found, diff_ids) == (config, (DIGEST, DIGEST))
    assert from_ready(to_ready(found, diff_ids, size)) == (found, diff_ids, size)


@given(CONFIGS)
def test_a_field_that_ready_forgets_is_seen(config: ImageConfig):
    """The mutant: the comparison above is able to fail."""
    changed = config.replace(user=config.user + "x")
    assert from_ready(to_ready(changed, (), 0)) != (config, (), 0)


def test_ready_of_another_version_is_not_believed():
    assert from_ready("minicontainer-ready=0\0size=1\0") is None
    assert from_ready("") is None


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("[]", "not a JSON object"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"config": []}', "config is not a JSON object"),
        ('{"config": {"Env": "A=1"}}', "config.Env is not a list"),
        ('{"config": {"Env": [1]}}', "config.Env[0] is not a string"),
        ('{"config": {"Env": ["=1"]}}', "not NAME=VALUE"),
        ('{"config": {"Cmd": ["a\\u0000b"]}}', "config.Cmd[0] has a NUL"),
        ('{"config": {"Cmd": ["\\ud800"]}}', "surrogate"),
        ('{"config": {"Volumes": {"/a/../../etc": {}}}}', "'..'"),
        ('{"config": {"Volumes": {"relative": {}}}}', "absolute"),
        ('{"config": {"WorkingDir": "/../x"}}', "'..'"),
        ('{"config": {"User": 0}}', "config.User is not a string"),
        ('{"config": {"Labels": {"a": {}}}}', "config.Labels.a is not a string"),
        ('{"rootfs": {"diff_ids": ["sha256:../../etc"]}}', "rootfs.diff_ids[0]"),
        ('{"rootfs": {"diff_ids": {}}}', "rootfs.diff_ids is not a list"),
    ],
)
def test_wishes_that_are_refused(document: str, words: str):
    with pytest.raises(ImageError) as refused:
        from_json(document.encode())
    assert words in refused.value.message


def test_the_check_of_wishes_can_fail(monkeypatch):
    """The mutant: without ``check``, the volume of CVE-2022-23648 would pass."""
    monkeypatch.setattr(config_module, "check", lambda config: config)
    assert from_json(b'{"config": {"Volumes": {"/a/../../etc": {}}}}')[0].volumes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(["Env", "Cmd", "Entrypoint", "Volumes", "WorkingDir", "User", "Labels"])


@given(st.dictionaries(KEYS, JSON), JSON, JSON)
def test_no_configuration_crashes(wishes: object, rootfs: object, anything: object):
    for document in ({"config": wishes, "rootfs": rootfs}, anything):
        try:
            config, _ = from_json(json.dumps(document).encode())
        except ImageError:
            continue
        assert all(isinstance(word, str) for word in config.cmd + config.env)


# ---- import -c


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['CMD ["sh", "-i"]'], ImageConfig(cmd=("sh", "-i"))),
        (["CMD echo $HOME"], ImageConfig(cmd=("/bin/sh", "-c", "echo $HOME"))),
        (["entrypoint []"], ImageConfig(entrypoint=("/bin/sh", "-c", "[]"))),
        (['ENTRYPOINT ["a"]', 'ENTRYPOINT ["b"]'], ImageConfig(entrypoint=("b",))),
        (["ENV A=1 B='x y'", "ENV A=2"], ImageConfig(env=("A=2", "B=x y"))),
        (["ENV A some words"], ImageConfig(env=("A=some words",))),
        (["WORKDIR /srv", "USER 1:2"], ImageConfig(working_dir="/srv", user="1:2")),
        (["LABEL a=1", "LABEL b=2 a=3"], ImageConfig(labels=(("a", "3"), ("b", "2")))),
        (['VOLUME ["/a"]', "VOLUME /b /a"], ImageConfig(volumes=("/a", "/b"))),
        (["EXPOSE 80 53/udp"], ImageConfig(exposed_ports=("80/tcp", "53/udp"))),
        (["STOPSIGNAL SIGINT"], ImageConfig(stop_signal="SIGINT")),
    ],
)
def test_instructions(lines: list[str], expected: ImageConfig):
    config = ImageConfig()
    for line in lines:
        config = apply(config, line)
    assert config == expected


@pytest.mark.parametrize(
    "line", ["", "CMD", "RUN ls", "FROM x", "ENV A=1 B", "ENV A='x", "VOLUME x", "WORKDIR /../x"]
)
def test_no_instructions(line: str):
    with pytest.raises(MinicontainerError):
        apply(ImageConfig(), line)
