"""Models of the Hugging Face hub: one commit, its files with their hashes, and what they say.

Nothing but text files and headers is read here; the plan pins the commit and every file's hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from multigpu import hub_files
from multigpu.errors import ModelError
from multigpu.fetching import hub_address
from multigpu.host.fetch_http import Client
from multigpu.model import from_hf_config
from multigpu.model.tensor_headers import StoredTensor, read_safetensors
from multigpu.model_reference import HubReference
from multigpu.plan import ModelFile, ModelSpec, Source
from multigpu.store import gguf_files, remote

TEXTS = ("config.json", "hf_quant_config.json")
AT_A_TIME = 8


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT of the environment, or the public one."""
    import huggingface_hub.constants

    return huggingface_hub.constants.ENDPOINT


class Repository:
    """One commit of a repository: file names to sizes and hashes. Raises ModelError."""

    def __init__(self, reference: str, wanted: HubReference, token: str | None) -> None:
        import huggingface_hub

        self.reference, self.repo_id = reference, wanted.repo_id
        self.token = token or huggingface_hub.get_token()
        self.api = huggingface_hub.HfApi(endpoint=endpoint(), token=self.token or False)
        try:
            info = self.api.model_info(
                wanted.repo_id, revision=wanted.revision, files_metadata=True
            )
        except Exception as error:  # the HTTP library underneath, and its errors, change by version
            raise ModelError(f"{reference}: {why(error, wanted.revision)}") from None
        self.commit = str(info.sha)
        self.files = {f.path: f for f in map(_file, info.siblings or ())}

    @property
    def client(self) -> Client:
        """For the contents of files."""
        return Client(endpoint(), self.token, endpoint().startswith("http://"))

    def address(self, name: str) -> str:
        """Where a file of this commit is served."""
        return hub_address(endpoint(), self.repo_id, self.commit, name)

    def text(self, name: str) -> bytes:
        """A small file, verified. Raises ModelError."""
        content, planned = remote.text(self.client, self.address(name)), self.files[name]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        found = hashlib.sha256(content).hexdigest() if planned.sha256 else blob
        if found != (planned.sha256 or planned.blob_id):
            raise ModelError(f"{self.reference}: {name} is not what the hub lists: try again")
        return content

    def tensors(self, names: Iterable[str]) -> tuple[StoredTensor, ...]:
        """What the headers of *.safetensors list; none where the hub does not give them."""
        client, addresses = self.client, [self.address(name) for name in names]
        try:
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                heads = pool.map(lambda each: remote.safetensors_head(client, each), addresses)
                return tuple(tensor for head in heads for tensor in read_safetensors(head))
        except ModelError:  # the sizes of the files are known all the same
            return ()


def _file(sibling: Any) -> ModelFile:
    lfs = getattr(sibling, "lfs", None)
    sha256 = str(lfs.sha256) if lfs is not None else None
    blob_id = str(sibling.blob_id) if sha256 is None and sibling.blob_id else None
    return ModelFile(str(sibling.rfilename), int(sibling.size or 0), sha256, blob_id)


def load(
    reference: str, wanted: HubReference, *, token: str | None = None, trust: bool | None = None
) -> ModelSpec:
    """The model of a repository, its commit and the files to fetch. Raises ModelError."""
    repository = Repository(reference, wanted, token)
    ggufs = hub_files.pick_gguf(wanted, repository.files)
    if ggufs is not None:
        return _gguf(reference, repository, ggufs)
    return _transformers(reference, repository, trust)


def _gguf(reference: str, repository: Repository, names: tuple[str, ...]) -> ModelSpec:
    heads = {
        name.rpartition("/")[2]: remote.gguf_head(repository.client, repository.address(name))
        for name in names
    }
    found = gguf_files.from_heads(
        reference,
        heads,
        where=Source.HUB,
        first=names[0].rpartition("/")[2],
        path=repository.repo_id,
    )
    files = tuple(repository.files[name] for name in names)
    return replace(found, revision=repository.commit, files=files)


def _transformers(reference: str, repository: Repository, trust: bool | None) -> ModelSpec:
    names = repository.files
    if "config.json" not in names:
        raise ModelError(
            f"{reference}: the hub repository has neither config.json nor a GGUF: name a model"
        )
    hub_files.check_formats(reference, names)
    texts = {n: _json(repository.text(n), f"{reference}: {n}") for n in TEXTS if n in names}
    hub_files.check_code(reference, texts["config.json"], trust)
    fetched = hub_files.read_by_runtimes(names, code=bool(trust))
    stored = [name for name in fetched if name.endswith(".safetensors")]
    weights = sum(names[name].size_bytes for name in stored) or None
    found = from_hf_config(
        texts["config.json"],
        name=reference,
        source=Source.HUB,
        path=repository.repo_id,
        weights_bytes=weights,
        quant_config=texts.get("hf_quant_config.json"),
        revision=repository.commit,
        tensors=repository.tensors(stored),
    )
    return replace(found, files=tuple(names[name] for name in fetched))


def _json(content: bytes, what: str) -> Mapping[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise ModelError(f"{what} is not JSON") from None
    if not isinstance(value, Mapping):
        raise ModelError(f"{what} is not a JSON object")
    return value


def why(error: Exception, revision: str | None) -> str:
    """What an error of huggingface_hub means and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    kind = type(error).__name__
    if status in (401, 403) or kind == "GatedRepoError":
        return (
            "the hub refuses access: accept the licence there and set hf_token_file (or HF_TOKEN "
            "on the controller); a repository that does not exist answers so, too"
        )
    if kind == "RevisionNotFoundError":
        return f"the hub has no revision {revision} of it: check revision"
    if status == 404:
        return "no such model on the hub: check the name, or set hf_token_file if it is private"
    if status is not None:
        return f"the hub answered {status}: try again, or download the model and name its folder"
    return (
        f"the hub cannot be reached from the controller ({kind}): check the network, or download "
        "the model and name its folder"
    )
