"""Every stage by itself against what the published code computed (`tests/golden`)."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.faces import read_faces
from fmmt_deploy.data.text import DialogueTokenizer
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.torch.load import reference_from_bundle
from fmmt_deploy.pipeline.inputs import fusion_inputs
from fmmt_deploy.pipeline.noise import no_noise, recorded_noise
from fmmt_deploy.pipeline.plan import padded_tokens, plan_groups
from fmmt_deploy.reference.fusion import gate_faces, text_rows
from fmmt_deploy.reference.model import ReferenceModel
from tests.models import ON_CPU, Golden


@dataclass(frozen=True)
class Stages:
    """A golden model, and its data set as one batch of dialogues in order."""

    golden: Golden
    bundle: Bundle
    model: ReferenceModel

    def inputs(self, token_states: np.ndarray, noisy: bool = False) -> dict[str, torch.Tensor]:
        """What `fusion` takes, in the data set's order, from the published face logits."""
        sizes = self.bundle.manifest.architecture.fusion
        assert sizes is not None
        (group,) = self.groups()
        members = {member.utterance.id: member for member in group.members}
        noise = recorded_noise(self.golden.data / "expected.npz", self.golden.dataset, sizes.vision_length)
        arrays = fusion_inputs(
            [members[utterance] for utterance in self.golden.dataset.order],
            sizes,
            token_states,
            self.golden.expected["swin_logits"],
            noise if noisy else no_noise,
        )
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def groups(self) -> tuple:
        text = (self.bundle.path / "tokenizer.json").read_text(encoding="utf-8")
        plm = self.bundle.manifest.architecture.plm
        assert plm is not None
        tokenizer = DialogueTokenizer(text, plm.kind, plm.max_tokens)
        return plan_groups(self.golden.dataset, tokenizer, 38, batch_size=1000)


@pytest.fixture(scope="module")
def stages(golden: Golden) -> Stages:
    bundle = Bundle.open(golden.bundle)
    return Stages(golden, bundle, reference_from_bundle(bundle))


@pytest.mark.parametrize("kind", ON_CPU)
def test_faces(stages: Stages, kind: str) -> None:
    utterances = {u.id: u for dialogue in stages.golden.dataset.dialogues for u in dialogue.utterances}
    paths = [path for name in stages.golden.dataset.order for path in utterances[name].faces[:6]]
    assert len(paths) == len(stages.golden.expected["swin_logits"])
    faces = read_faces(paths)[::3]  # of every size; a third of them is quicker, and test_commands needs them all
    with open_engines(stages.bundle, kind) as engines:
        logits = [engines["swin"].run({"faces": faces[i : i + 16]})["face_logits"] for i in range(0, len(faces), 16)]
    np.testing.assert_allclose(np.concatenate(logits), stages.golden.expected["swin_logits"][::3], rtol=0, atol=5e-5)


@pytest.mark.parametrize("kind", ON_CPU)
def test_text(stages: Stages, kind: str) -> None:
    expected = stages.golden.expected
    (group,) = stages.groups()
    ids, mask = padded_tokens(group.windows)
    order = np.argsort(-expected["input_mask"].sum(axis=1), kind="stable")  # the longest come first
    width = ids.shape[1]
    np.testing.assert_array_equal(ids, expected["input_ids"][order, :width])
    np.testing.assert_array_equal(mask, expected["input_mask"][order, :width])
    assert not expected["input_mask"][:, width:].any()
    with open_engines(stages.bundle, kind) as engines:
        states = engines["plm"].run({"input_ids": ids, "attention_mask": mask})["token_states"]
    inputs = stages.inputs(states)
    words, words_mask = text_rows(*(inputs[n] for n in ("token_states", "text_row", "text_start", "text_length")), 38)
    np.testing.assert_array_equal(words_mask, expected["text_mask"])
    np.testing.assert_allclose(words, expected["text_feat"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["", "gumbel_"], ids=["no-noise", "recorded-noise"])
def test_gate_and_encoders(stages: Stages, kind: str) -> None:
    expected, model = stages.golden.expected, stages.model
    inputs = stages.inputs(np.zeros((4, 1, 48), np.float32), noisy=bool(kind))
    gate = (inputs[name] for name in ("vision", "vision_mask", "face_logits", "face_index", "noise"))
    vision, mask, _ = gate_faces(*gate, model.tau, model.threshold)
    np.testing.assert_array_equal(mask, expected[f"{kind}vision_mask"])
    np.testing.assert_allclose(vision, expected[f"{kind}vision_in"], rtol=0, atol=1e-6)
    if kind:
        return  # the encoders' outputs were recorded without noise
    audio_mask = (torch.arange(14) < inputs["audio_length"][:, None]).float()
    with torch.inference_mode():
        audio_out, vision_out = model.fusion.encode(inputs["audio"], audio_mask, vision, mask)
    np.testing.assert_allclose(audio_out, expected["audio_out"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(vision_out, expected["vision_out"], rtol=0, atol=1e-5)
