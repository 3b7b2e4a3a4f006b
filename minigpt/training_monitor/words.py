"""The monitor's sentences, in English and Chinese. Remedies are one a line."""

Words = dict[str, str]

ENGLISH: Words = {
    "seen_label": "Seen: ",
    "duration_label": "Duration: ",
    "cause_label": "Likely cause: ",
    "remedy_label": "What to do: ",
    "remedy_separator": "; or ",
    "separator": ", ",
    "half_lr": "<half of it>",
    "suspected": "suspected, first seen at step {opened_at}; one look is not enough to tell whether it lasts",
    "transient": "transient: {length} step(s) from step {opened_at}, over by itself at step {step}",
    "sustained": "sustained since step {opened_at} ({length} steps so far)",
    "resolved": "resolved at step {step}, after {length} steps from step {opened_at}",
    "update.refused": "the update was not applied",
    "update.applied": "the update was not refused",
    "also.normal": "{ratio} x its own normal of {normal}",
    "also.declining_since": "falling since about step {declining_since}",
    "also.loss_improvement": "the loss improved by {loss_improvement} meanwhile",
    "also.group": "first of all in {group}",
    "also.new_normal": "the loss goes on; this is taken as the new normal",
    "also.overflows_in_a_row": "{overflows_in_a_row} fp16 overflows in a row at scale {scaler_scale}",
    "gradient_vanishing.seen": "gradient norm {value} (absolute floor {floor}), loss {loss}",
    "gradient_vanishing.group": "most in {group} ({group_ratio} x its own normal)",
    "gradient_vanishing.cause": "the backward signal fades: a detached or saturated path, a learning rate "
    "that has fallen to nothing, a loss that is masked out, or fp16 gradients flushed to zero",
    "gradient_vanishing.remedies": "look which parameters get no gradient: "
    "--set training.check_grad_flow=true\n"
    "rule fp16 out: --set training.mixed_precision=off\n"
    "if the loss does fall, lower the floor: --set monitor.gradient_vanishing.floor={lower_floor}",
    "gradient_exploding.seen": "gradient norm {value}, loss {loss}",
    "gradient_exploding.group": "most in {group} ({group_ratio} x its own normal)",
    "gradient_exploding.cause": "the updates have become too large for where the model is (learning rate, "
    "too short a warm-up), or a run of broken data",
    "gradient_exploding.remedies": "lower the learning rate: --set optimizer.learning_rate={lower_lr}\n"
    "warm up longer: --set schedule.warmup_steps={longer_warmup}\n"
    "clip harder: --set training.max_grad_norm={clip}",
    "loss_spike.seen": "loss {value}, gradient norm {grad_norm}",
    "loss_spike.cause": "too large a learning rate, a run of unusual or broken data, or a change of "
    "the data mixture",
    "loss_spike.remedies": "resume from the checkpoint before it with a lower rate: "
    "--resume --set optimizer.learning_rate={lower_lr}\n"
    "clip harder: --set training.max_grad_norm={clip}",
    "nan_loss.seen": "loss {loss} at epoch {epoch}, window {position}; gradient norm {grad_norm}",
    "nan_loss.cause": "a value overflowed in the forward pass (attention logits or activations grew too "
    "large, or fp16 ran out of range), or a weight is already NaN",
    "nan_loss.remedies": "lower the learning rate: --set optimizer.learning_rate={lower_lr}\n"
    "leave fp16: --set training.mixed_precision=bf16\n"
    "keep attention logits in bounds: --set model.qk_norm=true",
    "non_finite_gradient.seen": "gradient norm {grad_norm} with a finite loss of {loss}",
    "non_finite_gradient.cause": "the backward pass overflowed while the forward did not: a division or root "
    "near zero, or fp16 out of range",
    "non_finite_gradient.remedies": "leave fp16: --set training.mixed_precision=bf16\n"
    "lower the learning rate: --set optimizer.learning_rate={lower_lr}",
    "overflow.cause": "the fp16 scaler keeps finding infinities although it has lowered its scale: the "
    "gradients themselves are too large for fp16, or NaN",
    "overflow.remedies": "leave fp16: --set training.mixed_precision=bf16\n"
    "lower the learning rate: --set optimizer.learning_rate={lower_lr}",
}

CHINESE: Words = {
    "seen_label": "现象：",
    "duration_label": "持续性：",
    "cause_label": "可能原因：",
    "remedy_label": "建议：",
    "remedy_separator": "；或 ",
    "separator": "，",
    "half_lr": "<减半>",
    "suspected": "疑似，首次出现于第 {opened_at} 步；仅凭一次观察还不能判断是否持续",
    "transient": "瞬时波动：自第 {opened_at} 步起共 {length} 步，第 {step} 步自行恢复",
    "sustained": "持续：自第 {opened_at} 步起已 {length} 步",
    "resolved": "第 {step} 步已恢复，自第 {opened_at} 步起共 {length} 步",
    "update.refused": "本次参数更新未执行",
    "update.applied": "本次参数更新未被拒绝",
    "also.normal": "为自身正常值 {normal} 的 {ratio} 倍",
    "also.declining_since": "约从第 {declining_since} 步开始下降",
    "also.loss_improvement": "同期损失改善 {loss_improvement}",
    "also.group": "最先出现于 {group}",
    "also.new_normal": "损失仍在改善，视为新的正常水平",
    "also.overflows_in_a_row": "缩放系数 {scaler_scale} 下 fp16 连续溢出 {overflows_in_a_row} 次",
    "gradient_vanishing.seen": "梯度范数 {value}（绝对下限 {floor}），损失 {loss}",
    "gradient_vanishing.group": "{group} 最明显（为自身正常值的 {group_ratio} 倍）",
    "gradient_vanishing.cause": "反向信号逐渐消失：某条路径被 detach 或饱和、学习率降到接近零、"
    "损失被全部屏蔽，或 fp16 梯度下溢为零",
    "gradient_vanishing.remedies": "查看哪些参数没有梯度：--set training.check_grad_flow=true\n"
    "排除 fp16 的影响：--set training.mixed_precision=off\n"
    "若损失仍在下降，可调低下限：--set monitor.gradient_vanishing.floor={lower_floor}",
    "gradient_exploding.seen": "梯度范数 {value}，损失 {loss}",
    "gradient_exploding.group": "{group} 最明显（为自身正常值的 {group_ratio} 倍）",
    "gradient_exploding.cause": "更新步幅过大（学习率过高、warmup 太短），或连续遇到异常数据",
    "gradient_exploding.remedies": "降低学习率：--set optimizer.learning_rate={lower_lr}\n"
    "延长 warmup：--set schedule.warmup_steps={longer_warmup}\n"
    "加强梯度裁剪：--set training.max_grad_norm={clip}",
    "loss_spike.seen": "损失 {value}，梯度范数 {grad_norm}",
    "loss_spike.cause": "学习率过高、连续遇到异常或损坏的数据，或数据配比发生变化",
    "loss_spike.remedies": "从之前的检查点以更低学习率恢复："
    "--resume --set optimizer.learning_rate={lower_lr}\n"
    "加强梯度裁剪：--set training.max_grad_norm={clip}",
    "nan_loss.seen": "第 {epoch} 轮、窗口 {position} 处损失为 {loss}；梯度范数 {grad_norm}",
    "nan_loss.cause": "前向计算溢出（注意力 logits 或激活过大，或超出 fp16 范围），或权重中已有 NaN",
    "nan_loss.remedies": "降低学习率：--set optimizer.learning_rate={lower_lr}\n"
    "改用 bf16：--set training.mixed_precision=bf16\n"
    "限制注意力 logits：--set model.qk_norm=true",
    "non_finite_gradient.seen": "损失 {loss} 有限而梯度范数为 {grad_norm}",
    "non_finite_gradient.cause": "前向正常而反向溢出：接近零的除法或开方，或超出 fp16 范围",
    "non_finite_gradient.remedies": "改用 bf16：--set training.mixed_precision=bf16\n"
    "降低学习率：--set optimizer.learning_rate={lower_lr}",
    "overflow.cause": "fp16 缩放系数已多次降低仍出现无穷：梯度本身超出 fp16 范围，或为 NaN",
    "overflow.remedies": "改用 bf16：--set training.mixed_precision=bf16\n"
    "降低学习率：--set optimizer.learning_rate={lower_lr}",
}

WORDS: dict[str, Words] = {"en": ENGLISH, "zh": CHINESE}
