import pytest

from actors.prompts import PromptSource, Stream, fill, load_prompts, stream_seed


def test_shipped_sets_have_their_papers_sizes():
    assert len(load_prompts("animals45", "a(n) {}", None)) == 45
    assert len(load_prompts("imagenet_animals", "a(n) {}", None)) == 398


def test_the_article_follows_the_animal():
    assert fill("a(n) {}", "ant") == "an ant"
    assert fill("a(n) {} riding a bike", "fox") == "a fox riding a bike"


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


def test_a_file_is_taken_line_by_line(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a red bicycle\n\n# not this\n  two dogs  \n", "utf-8")
    assert load_prompts(str(file), "a(n) {}", None) == ("a red bicycle", "two dogs")
    assert load_prompts(str(file), "a(n) {}", 1) == ("a red bicycle",)


def test_bad_prompt_files_are_refused_with_their_cure(tmp_path):
    empty, latin = tmp_path / "empty.txt", tmp_path / "latin.txt"
    empty.write_text("# nothing\n\n")
    latin.write_bytes("größe".encode("latin-1"))
    with pytest.raises(ValueError, match="holds no prompt"):
        load_prompts(str(empty), "{}", None)
    with pytest.raises(ValueError, match="not UTF-8"):
        load_prompts(str(latin), "{}", None)
    with pytest.raises(ValueError, match="shipped: animals45, imagenet_animals"):
        load_prompts("animals46", "{}", None)
