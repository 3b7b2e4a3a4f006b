from minigpt.model.config import ModelConfig
from minigpt.model.count import num_parameters
from minigpt.planning.memory import memory_report
from minigpt.planning.sharding import shares
from minigpt.planning.workload import Workload

WORK = Workload(ModelConfig(), 8192, 4, device_type="cuda")
PARAMETERS = num_parameters(WORK.model, WORK.vocab_size)


def test_ddp_is_what_the_report_says_of_several_ranks() -> None:
    (ddp, _, _) = shares(WORK, 4)
    ranks = Workload(ModelConfig(), 8192, 4, device_type="cuda", world_size=4)
    assert ddp.peak_bytes == memory_report(ranks).peak
    assert ddp.sent_bytes == 2 * 3 * PARAMETERS  # 2 x 3/4 x 4 bytes


def test_sharing_out_saves_the_state_it_shares() -> None:
    ddp, zero, fsdp = shares(WORK, 4)
    assert ddp.peak_bytes - zero.peak_bytes == 8 * PARAMETERS * 3 // 4
    assert zero.sent_bytes == ddp.sent_bytes
    assert fsdp.sent_bytes == 9 * PARAMETERS  # 3/4 x (4 + 4 + 4) bytes
    large = [shares(WORK, number)[2].peak_bytes for number in (2, 8, 64)]
    assert large == sorted(large, reverse=True)
