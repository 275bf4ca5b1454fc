import pytest
from hydra import compose, initialize_config_dir

from recon.cli.config_dir import conf_dir
from recon.train import train


@pytest.mark.slow
@pytest.mark.parametrize("batches_per_step", [1, 4])
def test_log_file_gets_ten_lines_with_epoch_loss_and_remaining_time(
    batches_per_step: int, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["trainer.max_epochs=4", "trainer.limit_train_batches=25", "~callbacks.report"]
    accumulate = f"trainer.accumulate_grad_batches={batches_per_step}"
    options = ["experiment=pretrain_furniture", "debug=tiny", f"output_dir={tmp_path}", *short]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*options, accumulate]))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 10
    assert lines[0].startswith("epoch 1/4: train/total ")
    assert lines[-1].startswith("epoch 4/4: train/total ")
    assert all("s elapsed" in line for line in lines)
    assert lines[-1].endswith("0 s left")
