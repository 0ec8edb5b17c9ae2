import pickle

import pytest

from actors.prompts import PromptSet, PromptSource, Stream, load_prompts, stream_seed


def test_every_prompt_comes_equally_often_and_images_of_a_prompt_lie_together():
    source = PromptSource(("a", "b", "c"), images_per_prompt=2, run_seed=1)
    drawn = [prompt for task_id in range(3) for prompt in source.batch(task_id, 4)]
    assert sorted(drawn) == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert all(drawn[place] == drawn[place + 1] for place in range(0, 12, 2))


def test_prompts_and_seeds_depend_on_ids_alone():
    one, other = (PromptSource(("a", "b", "c"), 1, run_seed=7) for _ in range(2))
    other.batch(0, 8)
    assert one.batch(5, 8) == other.batch(5, 8)
    assert one.seeds(5, 8) == other.seeds(5, 8)


def test_no_two_samples_share_a_seed():
    source = PromptSource(("a",), 1, run_seed=0)
    seeds = [seed for task_id in range(200) for seed in source.seeds(task_id, 16)]
    assert len(set(seeds)) == len(seeds) == 3200
    assert stream_seed(0, Stream.NOISE, 3) != stream_seed(0, Stream.EVALUATION, 3)


def test_the_draw_of_a_run_never_changes():
    source = PromptSource(load_prompts("animals45", "a(n) {}", None).prompts, images_per_prompt=2, run_seed=7)
    assert source.batch(11, 4) == ("a dog", "a dog", "a zebra", "a zebra")
    assert source.seeds(11, 2) == (3035319454131642659, 5685606507663080106)


def test_a_text_file_is_taken_line_by_line_without_the_template(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a red bicycle\r\n\n# not this\n  two\tdogs  \n", "utf-8-sig")
    assert load_prompts(str(file), "a(n) {}", None) == PromptSet(
        ("a red bicycle", "two\tdogs"), {"a red bicycle": {}, "two\tdogs": {}}
    )
    assert load_prompts(str(file), "a(n) {}", 1) == PromptSet(("a red bicycle",), {"a red bicycle": {}})


def test_the_metadata_of_a_batch_follow_its_prompts(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "two cats", "number": 2}\n{"prompt": "a fox"}\n{"prompt": "two cats", "number": 2}\n')
    prompts = load_prompts(str(file), "a(n) {}", None)
    assert prompts.prompts == ("two cats", "a fox", "two cats")
    assert prompts.metadata_of(("a fox", "two cats", "two cats")) == ({}, {"number": 2}, {"number": 2})
    drawn = PromptSource(prompts.prompts, images_per_prompt=1, run_seed=0).batch(0, 3)
    assert sorted(drawn) == ["a fox", "two cats", "two cats"]
    assert load_prompts(str(file), "{}", 1).metadata == {"two cats": {"number": 2}}


def test_a_set_and_its_pieces_can_be_sent():
    prompts = load_prompts("counting", "{}", None)
    assert pickle.loads(pickle.dumps(prompts)) == prompts
    batch = prompts.metadata_of(prompts.prompts[:3])
    assert pickle.loads(pickle.dumps(batch)) == batch


def test_bad_sources_are_refused_with_their_cure(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("# nothing\n\n")
    with pytest.raises(ValueError, match="holds no prompt"):
        load_prompts(str(empty), "{}", None)
    known = "shipped: animals45, animals_activities, counting, imagenet_animals, imagenet_classes, imagenet_dogs"
    for source in ("animals46", str(tmp_path), "~nobody-of-this-name/prompts.txt", str(empty / "prompts.txt")):
        with pytest.raises(ValueError, match=known):
            load_prompts(source, "{}", None)
