import pytest
from hydra import compose, initialize_config_dir

from recon.cli.config_dir import conf_dir
from recon.train import train


@pytest.mark.slow
@pytest.mark.parametrize("batches_a_step", [1, 4])
def test_a_log_file_gets_a_few_lines_with_epoch_loss_and_time_left(
    batches_a_step: int, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["trainer.max_epochs=4", "trainer.limit_train_batches=25", "~callbacks.report"]
    several = f"trainer.accumulate_grad_batches={batches_a_step}"
    options = ["experiment=pretrain_furniture", "debug=tiny", f"output_dir={tmp_path}", *short]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*options, several]))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 10
    assert lines[0].startswith("epoch 1/4: train/total ")
    assert lines[-1].startswith("epoch 4/4: train/total ")
    assert all("s elapsed" in line for line in lines)
    assert lines[-1].endswith("0 s left")
