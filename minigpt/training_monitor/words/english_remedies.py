"""What to do about each cause, in English: one remedy a line; --set lines are for MiniGPT and become plain settings in
another loop."""

REMEDIES: dict[str, str] = {
    "missing_from_optimizer": "build the optimizer from model.parameters(), after the last layer was added",
    "learning_rate_off_schedule": "look for a second scheduler, or an lr that a resume brought back",
    "zero_grad_forgotten": "call optimizer.zero_grad() after optimizer.step()",
    "optimizer_state_lost": "resume from a checkpoint with its optimizer state\nwarm up again over 50-100 steps",
    "weights_changed_outside": "go back to the last healthy checkpoint: --resume healthy\n"
    "if it comes again, test the memory of the machine",
    "weight_decay_too_high": "lower it: --set optimizer.weight_decay={lower_decay}",
    "fp16_overflow": "leave fp16: --set training.mixed_precision=bf16\n"
    "lower the learning rate: --set optimizer.learning_rate={lower_lr}",
    "fp16_underflow": "leave fp16: --set training.mixed_precision=bf16\nlet GradScaler choose the scale",
    "labels_shuffled": "check how inputs and targets are paired: targets are inputs shifted by one\n"
    "go back to before it: --resume healthy",
    "label_leak": "shift the targets by one: position t must predict t + 1",
    "sees_the_future": "check the attention mask (is_causal=True), and that nothing else mixes over time without one\n"
    "check by how much targets, or the mask, are shifted",
    "batch_repeats": "check the sampler's position and the loader's resume",
    "degenerate_data": "look at the documents of these batches and drop the broken ones\n"
    "go back to before it: --resume healthy",
    "layer_cut_off": "see which parameters get no gradient: --set training.check_grad_flow=true\n"
    "if they get little and not none, lower the learning rate: --set optimizer.learning_rate={lower_lr}",
    "units_dead": "lower the learning rate: --set optimizer.learning_rate={lower_lr}",
    "attention_logits_grow": "keep them in bounds: --set model.qk_norm=true\n"
    "lower the learning rate: --set optimizer.learning_rate={lower_lr}",
    "activations_grow": "lower the learning rate: --set optimizer.learning_rate={lower_lr}\n"
    "more weight decay: --set optimizer.weight_decay=0.1",
    "output_logits_grow": "add z-loss: --set model.z_loss_weight=0.0001",
    "machine_slower": "look at the load of the machine; the training itself is not harmed",
    "memory_leak": "keep numbers, not tensors: loss.item() or loss.detach()",
    "gradients_rescaled": "divide each micro-batch's loss by the number of micro-batches (or of its targets)",
    "bad_initialization": "initialise with a standard deviation of about 0.02: --set model.init_std=0.02",
    "frozen_by_accident": "set requires_grad back, or declare it: monitor.declare_change()",
    "graph_detached": "see which parameters get no gradient: --set training.check_grad_flow=true\n"
    "look for detach(), .data, no_grad and .item() on the way to the loss",
    "gradients_still_scaled": "call scaler.unscale_(optimizer) after backward, before clipping and the monitor's step",
    "update_too_small_for_precision": "keep fp32 master weights (autocast instead of model.bfloat16())",
    "learning_rate_zero": "let the schedule end higher: --set schedule.min_lr_ratio=0.1\n"
    "look at its kind and at max_steps: it may end before the training does",
    "step_not_called": "call optimizer.step() (scaler.step(optimizer)) once a step",
    "learning_rate_jump": "find what sets the rate; go back to before it: --resume healthy",
    "learning_rate_too_high": "lower the learning rate: --set optimizer.learning_rate={lower_lr}\n"
    "warm up longer: --set schedule.warmup_steps={longer_warmup}\n"
    "clip harder: --set training.max_grad_norm={clip}",
    "warmup_too_short": "warm up longer: --set schedule.warmup_steps={longer_warmup}\n"
    "lower the learning rate: --set optimizer.learning_rate={lower_lr}",
    "optimizer_state_stale": "look at each parameter group's lr\n"
    "let the second moment forget faster: --set optimizer.betas=[0.9,0.95]",
    "learning_rate_too_low": "raise it: --set optimizer.learning_rate={higher_lr}",
    "clip_too_low": "clip only outliers: --set training.max_grad_norm={fitting_clip}",
    "eps_too_large": "lower it: --set optimizer.eps={lower_eps}",
    "initialized_too_large": "initialise with a standard deviation of about 0.02: --set model.init_std=0.02",
    "initialized_too_small": "initialise with a standard deviation of about 0.02: --set model.init_std=0.02",
    "scaler_stuck": "call scaler.update() after scaler.step(optimizer), once a step",
    "backward_fades": "look which parameters get no gradient: --set training.check_grad_flow=true\n"
    "rule fp16 out: --set training.mixed_precision=off\n"
    "if the loss does fall, lower the floor: --set monitor.gradient_vanishing.floor={lower_floor}",
    "objective_changed": "look at what changed in the loss and in the targets at that step\n"
    "go back to before it: --resume healthy",
    "blocks_collapsed": "lower the learning rate: --set optimizer.learning_rate={lower_lr}\n"
    "use Pre-Norm: --set model.norm_position=pre",
    "not_learning": "raise the learning rate: --set optimizer.learning_rate={higher_lr}\n"
    "see which parameters get gradients: --set training.check_grad_flow=true",
    "weights_not_finite": "go back to the last healthy checkpoint: --resume healthy",
    "forward_overflow": "lower the learning rate: --set optimizer.learning_rate={lower_lr}\n"
    "leave fp16: --set training.mixed_precision=bf16\n"
    "keep attention logits in bounds: --set model.qk_norm=true",
    "loss_not_finite": "look at what the loss divides by and takes the logarithm of, and whether any target counts",
    "input_not_finite": "look for NaN in the data and in their normalisation (a standard deviation of 0?)",
    "backward_overflow": "leave fp16: --set training.mixed_precision=bf16\n"
    "lower the learning rate: --set optimizer.learning_rate={lower_lr}",
    "bad_batch": "nothing, unless it comes again",
    "data_shift": "if it was meant, nothing (monitor.declare_change() tells the monitor)\n"
    "else resume from before it: --resume healthy",
    "one_layer_explodes": "clip harder: --set training.max_grad_norm={clip}\n"
    "lower the learning rate: --set optimizer.learning_rate={lower_lr}",
    "updates_too_large": "lower the learning rate: --set optimizer.learning_rate={lower_lr}\n"
    "warm up longer: --set schedule.warmup_steps={longer_warmup}\n"
    "clip harder: --set training.max_grad_norm={clip}",
    "unusual_batch": "nothing, unless it comes again",
}
