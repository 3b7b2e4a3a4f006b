"""针对每个原因的中文建议：与 english_remedies.py 键值一一对应。"""

REMEDIES: dict[str, str] = {
    "missing_from_optimizer": "在最后一层加入之后，用 model.parameters() 构建优化器",
    "learning_rate_off_schedule": "检查是否有第二个调度器，或恢复时带回的旧学习率",
    "zero_grad_forgotten": "在 optimizer.step() 之后调用 optimizer.zero_grad()",
    "optimizer_state_lost": "从带优化器状态的检查点恢复\n重新 warmup 50-100 步",
    "weights_changed_outside": "回到最后一个健康的检查点：--resume healthy\n若再次出现，请检测机器内存",
    "weight_decay_too_high": "降低权重衰减：--set optimizer.weight_decay={lower_decay}",
    "fp16_overflow": "改用 bf16：--set training.mixed_precision=bf16\n"
    "降低学习率：--set optimizer.learning_rate={lower_lr}",
    "fp16_underflow": "改用 bf16：--set training.mixed_precision=bf16\n让 GradScaler 自行选择缩放系数",
    "labels_shuffled": "检查输入与目标的配对：目标应为输入右移一位\n回到出错之前：--resume healthy",
    "label_leak": "将目标右移一位：位置 t 应预测 t + 1",
    "sees_the_future": "检查注意力掩码（is_causal=True），以及其他沿时间混合而没有掩码的运算\n检查目标或掩码移动了几位",
    "batch_repeats": "检查采样器的位置与加载器的恢复",
    "degenerate_data": "查看这些批次的文档并剔除损坏者\n回到出错之前：--resume healthy",
    "layer_cut_off": "查看哪些参数没有梯度：--set training.check_grad_flow=true\n"
    "若梯度很小而非为零，降低学习率：--set optimizer.learning_rate={lower_lr}",
    "units_dead": "降低学习率：--set optimizer.learning_rate={lower_lr}",
    "attention_logits_grow": "限制注意力 logits：--set model.qk_norm=true\n"
    "降低学习率：--set optimizer.learning_rate={lower_lr}",
    "activations_grow": "降低学习率：--set optimizer.learning_rate={lower_lr}\n"
    "加大权重衰减：--set optimizer.weight_decay=0.1",
    "output_logits_grow": "加入 z-loss：--set model.z_loss_weight=0.0001",
    "machine_slower": "查看机器负载；训练本身不受损害",
    "memory_leak": "保存数值而非张量：loss.item() 或 loss.detach()",
    "gradients_rescaled": "将每个微批次的损失除以微批次数（或其目标数）",
    "bad_initialization": "用约 0.02 的标准差初始化：--set model.init_std=0.02",
    "frozen_by_accident": "恢复 requires_grad，或声明：monitor.declare_change()",
    "graph_detached": "查看哪些参数没有梯度：--set training.check_grad_flow=true\n"
    "在通往损失的路径上查找 detach()、.data、no_grad 和 .item()",
    "gradients_still_scaled": "在 backward 之后、裁剪和监控之前调用 scaler.unscale_(optimizer)",
    "update_too_small_for_precision": "保留 fp32 主权重（用 autocast，而不是 model.bfloat16()）",
    "learning_rate_zero": "让调度停在更高处：--set schedule.min_lr_ratio=0.1\n"
    "检查调度的种类与 max_steps：它可能先于训练结束",
    "step_not_called": "每步调用一次 optimizer.step()（或 scaler.step(optimizer)）",
    "learning_rate_jump": "找出是什么改动了学习率；回到出错之前：--resume healthy",
    "learning_rate_too_high": "降低学习率：--set optimizer.learning_rate={lower_lr}\n"
    "延长 warmup：--set schedule.warmup_steps={longer_warmup}\n"
    "加强梯度裁剪：--set training.max_grad_norm={clip}",
    "warmup_too_short": "延长 warmup：--set schedule.warmup_steps={longer_warmup}\n"
    "降低学习率：--set optimizer.learning_rate={lower_lr}",
    "optimizer_state_stale": "检查每个参数组的学习率\n让二阶矩更快遗忘：--set optimizer.betas=[0.9,0.95]",
    "learning_rate_too_low": "提高学习率：--set optimizer.learning_rate={higher_lr}",
    "clip_too_low": "只裁剪离群值：--set training.max_grad_norm={fitting_clip}",
    "eps_too_large": "降低它：--set optimizer.eps={lower_eps}",
    "initialized_too_large": "用约 0.02 的标准差初始化：--set model.init_std=0.02",
    "initialized_too_small": "用约 0.02 的标准差初始化：--set model.init_std=0.02",
    "scaler_stuck": "每步在 scaler.step(optimizer) 之后调用 scaler.update()",
    "backward_fades": "查看哪些参数没有梯度：--set training.check_grad_flow=true\n"
    "排除 fp16 的影响：--set training.mixed_precision=off\n"
    "若损失仍在下降，可调低下限：--set monitor.gradient_vanishing.floor={lower_floor}",
    "objective_changed": "检查该步前后损失函数与目标有何变化\n回到出错之前：--resume healthy",
    "blocks_collapsed": "降低学习率：--set optimizer.learning_rate={lower_lr}\n"
    "改用 Pre-Norm：--set model.norm_position=pre",
    "not_learning": "提高学习率：--set optimizer.learning_rate={higher_lr}\n"
    "查看哪些参数有梯度：--set training.check_grad_flow=true",
    "weights_not_finite": "回到最后一个健康的检查点：--resume healthy",
    "forward_overflow": "降低学习率：--set optimizer.learning_rate={lower_lr}\n"
    "改用 bf16：--set training.mixed_precision=bf16\n"
    "限制注意力 logits：--set model.qk_norm=true",
    "loss_not_finite": "检查损失中的除数、对数的自变量，以及是否有目标参与计算",
    "input_not_finite": "检查数据及其归一化中的 NaN（标准差是否为 0？）",
    "backward_overflow": "改用 bf16：--set training.mixed_precision=bf16\n"
    "降低学习率：--set optimizer.learning_rate={lower_lr}",
    "bad_batch": "无需处理，除非再次出现",
    "data_shift": "若属有意，无需处理（monitor.declare_change() 可告知监测器）\n否则从出错之前恢复：--resume healthy",
    "one_layer_explodes": "加强梯度裁剪：--set training.max_grad_norm={clip}\n"
    "降低学习率：--set optimizer.learning_rate={lower_lr}",
    "updates_too_large": "降低学习率：--set optimizer.learning_rate={lower_lr}\n"
    "延长 warmup：--set schedule.warmup_steps={longer_warmup}\n"
    "加强梯度裁剪：--set training.max_grad_norm={clip}",
    "unusual_batch": "无需处理，除非再次出现",
}
