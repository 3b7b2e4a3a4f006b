"""The monitor's sentences in English. In `.seen`, | separates parts that are said only where all their numbers are
known; remedies are one a line; --set lines are for MiniGPT and become plain settings in another loop."""

LABELS: dict[str, str] = {
    "seen_label": "Seen: ",
    "moved_label": "Also moved: ",
    "duration_label": "Duration: ",
    "cause_label": "Likely cause: ",
    "other_label": "Or: ",
    "cleared_label": "Ruled out: ",
    "remedy_label": "What to do: ",
    "remedy_separator": "; or ",
    "separator": ", ",
    "reason_separator": "; ",
    "stop": ".",
    "half_lr": "<half of it>",
    "suspected": "suspected, first seen at step {opened_at}; one look is not enough to tell whether it lasts",
    "broken": "since step {since}; exact, not a matter of statistics",
    "transient": "transient: {length} step(s) from step {opened_at}, over by itself at step {step}",
    "at_once": "since step {since}; clear without waiting",
    "sustained": "sustained since step {since} ({length} steps so far)",
    "resolved": "resolved at step {step}, after {length} steps from step {opened_at}",
    "update.refused": "the update was not applied",
    "update.applied": "the update was not refused",
    "moved.lr": "learning rate {before} -> {after} ({sized}, from step {since})",
    "moved.loss": "loss {before} -> {after} (from step {since})",
    "moved.grad_norm": "gradient norm {before} -> {after} ({sized}, from step {since})",
    "moved.update_ratio": "updates {sized} relative to the weights (from step {since})",
    "moved.weight_norm": "weights {sized} (from step {since})",
    "moved.scaler_scale": "fp16 scale {before} -> {after} (from step {since})",
    "moved.tokens": "tokens a step {before} -> {after} (from step {since})",
    "moved.distinct_tokens": "distinct tokens in a batch {before} -> {after} (from step {since})",
    "moved.label_match": "targets that are the next input {before} -> {after} (from step {since})",
    "because.lr_jump": "the learning rate went from {before} to {after} at step {since}",
    "because.lr_fell": "the learning rate went from {before} to {after} from step {since} on",
    "because.no_warmup": "warm-up is {warmup_steps} steps",
    "because.update_size": "the last updates were {value} of the size of the weights",
    "because.eps": "gradients have a root mean square of at most {value}, eps is {eps}",
    "because.updates_alone": "the updates changed, the learning rate did not",
    "because.loss_alone": "learning rate, updates and make-up of the data are as before",
    "because.group": "{group} rose far more than the rest",
    "cleared.lr": "the learning rate (unchanged)",
    "cleared.data": "the data (make-up of the batches as before)",
    "cleared.fp16": "fp16 range (the run computes in {precision})",
}

SEEN: dict[str, str] = {
    "also.normal": "{ratio} x its own normal of {normal}",
    "also.declining_since": "falling since about step {declining_since}",
    "also.loss_improvement": "the loss improved by {loss_improvement} meanwhile",
    "also.group": "most in {group}",
    "also.new_normal": "the loss goes on; this is taken as the new normal",
    "also.module": "first in {module} ({phase})",
    "phase.weights": "its weights",
    "phase.input": "its input",
    "phase.forward": "going forward",
    "phase.backward": "going backward",
    "phase.loss": "in the loss itself",
    "phase.not reproduced": "not seen again on a second try",
    "also.module_input_max": "from inputs of at most {module_input_max}",
    "also.micro_batch": "in micro-batch {micro_batch} of {micro_batches}",
    "also.row": "only in sequence {row} (from 0) of the batch, which begins with the tokens {token_head}",
    "also.rerun": "{rerun}",
    "rerun.after_model": "done again, all that the model gives is finite: it arose behind the model, in the loss",
    "rerun.backward_finite": "done again, the model is finite forward and backward: it arose in what lies behind it",
    "rerun.forward_finite": "done again, the model is finite going forward",
    "rerun.incomplete": "what could be done again of the step is finite: it came from another of its micro-batches",
    "rerun.poisoned": "an update has carried it into the weights meanwhile, so where it began cannot be seen any more",
    "also.document": "the batch begins in {document} at {offset}: {text_head}",
    "also.bundle": "saved for `minigpt replay {bundle}`",
    "nan_loss.seen": "loss {loss}|epoch {epoch}, window {position}|gradient norm {grad_norm}",
    "non_finite_gradient.seen": "gradient norm {grad_norm} with a finite loss of {loss}",
    "overflow_streak.seen.in a row": "fp16 gradients overflow, {count} times in a row|scale {scaler_scale}",
    "overflow_streak.seen.in the window": "fp16 gradients overflow, {count} times lately|scale {scaler_scale}",
    "overflow_streak.seen.at one scale": "fp16 gradients overflowed {count} times and the scale stayed {scaler_scale}",
    "degenerate_batch.seen.tokens": "a whole batch is one and the same token",
    "degenerate_batch.seen.targets": "only {value} of the targets count, the rest is masked|usual {normal}",
    "degenerate_batch.document": "the most monotonous text is {document} from its token {offset} on",
    "gradient_vanishing.seen.eps": "gradients of {count} of {of} parameters are below {floor}: too small for "
    "Adam's eps|loss {loss}",
    "initial_loss.seen.large": "the weights are huge: a typical matrix makes what it is given {gain} times as large",
    "initial_loss.seen.weights": "the weights are tiny: matrices have a root mean square of {weight_rms}",
    "frozen_parameter.seen.coarse": "an update moves only {value} of the weights|{count} of {of} matrices|"
    "learning rate {lr}",
    "initial_loss.seen.uneven": "the first weights of {parameter} are {ratio} x those of its like in the other layers|"
    "{count} of {of} matrices",
    "gradient_scale_shift.seen.still scaled": "gradient norm {value} at a loss of {loss}: the fp16 scale of "
    "{scaler_scale} is still in it",
    "update_ratio_high.seen.alone": "{parameter} alone is updated by {value} of its size at a step|"
    "{ratio} x what is usual|learning rate {lr}",
    "nan_loss.group": "weights that are not finite: {group}",
    "non_finite_gradient.group": "going backward, first in {group}",
    "non_finite_gradient.parameter": "going backward, first in {parameter}",
    "overflow_streak.seen": "fp16 gradients overflow again and again|{count} times|scale {scaler_scale}",
    "scale_collapse.seen": "the fp16 scale fell to {scaler_scale}",
    "gradient_underflow.seen": "{value} of the gradient elements are exactly zero|usual {normal}|scale {scaler_scale}",
    "missing_gradient.seen": "no gradient for {parameters}|{count} of {of} parameters",
    "dead_layer.seen": "no gradient to speak of in {group}|{parameters}|its share is {group_ratio} x its own normal",
    "unoptimized_parameter.seen": "no optimizer has {parameters}|{count} of {of}",
    "frozen_parameter.seen": "{parameters} gets gradients and updates but does not move|{count} of {of}",
    "no_update.seen": "not one weight moves|learning rate {lr}",
    "learning_rate_mismatch.seen": "learning rate {lr}|the schedule says {scheduled_lr}|it was {normal}",
    "leftover_gradient.seen": "gradients of norm {value} were there before the step's first backward|"
    "its own are {grad_norm}",
    "optimizer_state_lost.seen": "the optimizer counts {value} updates, before it was {normal}|"
    "all updates leapt to {ratio} x their normal at once",
    "weight_jump.seen": "the weights of {parameters} changed by more than any update explains|"
    "change {value}, usual {normal}|{count} of {of}",
    "weight_collapse.seen": "the weights shrink: {value} of their size lost since step {since}|most in {parameter}",
    "update_ratio_high.seen": "an update is {value} of the size of the weights|in {parameter}|usual {normal}|"
    "learning rate {lr}",
    "update_ratio_low.seen": "an update is only {value} of the weights' size|usual {normal}|learning rate {lr}",
    "initial_loss.seen": "the first loss is {value}; knowing nothing gives {normal}",
    "loss_spike.seen": "loss {value}|gradient norm {grad_norm}",
    "loss_divergence.seen": "the loss climbs: {value}|best so far {normal}|gradient norm {grad_norm}",
    "loss_plateau.seen": "the loss stands at {value}|since the start {loss_improvement} better",
    "loss_collapse.seen": "the loss fell from {normal} to {value}: too good to be true",
    "gradient_vanishing.seen": "gradient norm {value} (absolute floor {floor})|loss {loss}",
    "gradient_exploding.seen": "gradient norm {value}|loss {loss}",
    "gradient_vanishing.group": "most in {group} ({group_ratio} x its own normal)",
    "gradient_exploding.group": "most in {group} ({group_ratio} x its own normal)",
    "gradient_scale_shift.seen": "all gradients changed by the same factor of {ratio}, the loss did not",
    "clip_saturation.seen": "gradient norm {value}, every step is clipped to {threshold}",
    "attention_logit_growth.seen": "attention logits up to {value}|usual {normal}",
    "activation_growth.seen": "activations of {group} have grown to {value}|usual {normal}",
    "output_logit_growth.seen": "output logits have grown to {value}|usual {normal}",
    "dead_units.seen": "{value} of the units in {group} are zero on every token|usual {normal}",
    "repeated_batch.seen": "the same batch {count} times running",
    "degenerate_batch.seen": "the batches have lost their variety|{value} distinct tokens, usual {normal}",
    "label_mismatch.seen": "only {value} of the targets are the next token|usual {normal}",
    "label_leak.seen": "{label_copy} of the targets stand in the input at their own place",
    "future_leak.seen": "another last token moves what the model says before it: {value} of what it moves there",
    "throughput_drop.seen": "{value} tokens/s, usual {normal}",
    "memory_growth.seen": "memory grows: {normal} -> {value}",
}

CAUSES: dict[str, str] = {
    "missing_from_optimizer": "these parameters were not given to the optimizer: they stay as initialised",
    "learning_rate_off_schedule": "the learning rate is set by something else than the schedule",
    "zero_grad_forgotten": "optimizer.zero_grad() is missing: gradients of old steps add up",
    "optimizer_state_lost": "the optimizer's state was lost (a resume without it, or a new optimizer): its moments "
    "start over",
    "weights_changed_outside": "something other than the optimizer changed the weights: a bad reload, memory "
    "corruption, or code that writes to them",
    "weight_decay_too_high": "weight decay pulls the weights to zero faster than the gradients push back",
    "fp16_overflow": "values outgrow fp16 (65504) and lowering the scale has not helped",
    "fp16_underflow": "gradients too small for fp16 are flushed to zero: the scale is too low",
    "labels_shuffled": "the targets do not belong to the inputs any more (shuffled or misaligned labels)",
    "label_leak": "the answer stands in the input (targets not shifted by one, or a leak)",
    "sees_the_future": "the model sees the tokens it should predict",
    "batch_repeats": "the data loader hands out the same batch over and over",
    "degenerate_data": "the data have become constant, nearly so, or are masked out (padding, a broken file)",
    "layer_cut_off": "this layer has been cut off from the loss: a zeroed gradient, a dead branch, a detach",
    "units_dead": "units that are zero on every token learn nothing any more",
    "attention_logits_grow": "attention logits grow without bound, attention becomes one-hot and then unstable",
    "activations_grow": "the residual stream grows from step to step",
    "output_logits_grow": "output logits drift away together",
    "machine_slower": "the machine is slower: another process, heat, a slow disk or data loader",
    "memory_leak": "something keeps hold of tensors from step to step (a list of losses with their graphs?)",
    "gradients_rescaled": "gradients were scaled, the loss was not: accumulation not divided by its steps, a changed "
    "loss reduction or world size",
    "bad_initialization": "the initial weights are too large (or the head is wrong): the model starts confidently "
    "wrong",
    "frozen_by_accident": "requires_grad was switched off for these parameters",
    "graph_detached": "the graph does not reach these parameters: detach(), no_grad, .data, or an unused branch",
    "gradients_still_scaled": "nobody unscales the fp16 gradients: clipping and the monitor see them times the scale",
    "update_too_small_for_precision": "the update is smaller than the weights' precision can hold (bf16 weights?)",
    "learning_rate_zero": "the learning rate has fallen to nothing",
    "step_not_called": "optimizer.step() is not called, or acts on other parameters",
    "learning_rate_jump": "the learning rate jumped",
    "learning_rate_too_high": "the learning rate is too high for where the model is",
    "warmup_too_short": "the learning rate rises too fast: warm-up is too short",
    "optimizer_state_stale": "the updates do not fit the gradients any more: a stale second moment, or one group's own "
    "learning rate",
    "learning_rate_too_low": "the learning rate is too low: the weights hardly move",
    "clip_too_low": "max_grad_norm is far below the gradients of this run: clipping decides the size of every update",
    "eps_too_large": "Adam's eps is larger than the gradients and damps every update",
    "initialized_too_large": "the initial weights are far too large: attention starts one-hot, and every layer drowns "
    "the one before",
    "initialized_too_small": "the initial weights are far too small: no layer passes anything on",
    "scaler_stuck": "the scaler does not lower its scale: scaler.update() is not called, or its result is undone",
    "objective_changed": "the loss is driven up, not down: a wrong sign, another objective, or targets that mean "
    "something else",
    "backward_fades": "the backward signal fades: a saturated or detached path, a masked loss, or too deep without a "
    "residual path",
    "not_learning": "the model learns nothing: learning rate, data or initialization",
    "weights_not_finite": "a weight is already NaN or infinite",
    "forward_overflow": "a value overflowed in the forward pass (attention logits or activations grown too large)",
    "loss_not_finite": "the loss function makes it of finite outputs: a logarithm or a division of 0, no target that "
    "counts",
    "input_not_finite": "the batch itself holds NaN or infinity",
    "backward_overflow": "the backward pass overflowed while the forward did not: a division or root near zero",
    "bad_batch": "an unusual or broken stretch of data; the run goes on as before",
    "data_shift": "the data changed (mixture, curriculum, a broken region)",
    "one_layer_explodes": "one layer's gradients outgrow the rest",
    "updates_too_large": "the updates are too large for where the model is (learning rate, warm-up)",
    "unusual_batch": "unusual data or an ordinary fluctuation",
}

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
