"""What a run reports, and the collectors that carry it somewhere.

A collector is named in gin: `Runner.collectors = [@csv_file.CSV]`. The
modules are `console`, `csv_file` and `tensorboard`; `base` holds the class that
a collector of your own extends.

Each number comes once an iteration and once a seed. The x-axis is agent steps
(one agent step is four frames on Atari).

| Tag                         | Meaning                             | Unit    |
| --------------------------- | ----------------------------------- | ------- |
| Train/AverageReturns        | mean return of an episode           | reward  |
| Train/MinReturns            | lowest return of an episode         | reward  |
| Train/MedianReturns         | median return of an episode         | reward  |
| Train/MaxReturns            | highest return of an episode        | reward  |
| Train/NumEpisodes           | episodes that ended                 | count   |
| Train/AverageEpisodeLengths | mean length of an episode           | steps   |
| Train/AverageStepsPerSecond | agent steps in a second, all seeds  | steps/s |
| Eval/AverageReturns         | the same of the evaluation episodes | reward  |
| Eval/MinReturns             | the same of the evaluation episodes | reward  |
| Eval/MedianReturns          | the same of the evaluation episodes | reward  |
| Eval/MaxReturns             | the same of the evaluation episodes | reward  |
| Eval/NumEpisodes            | the same of the evaluation episodes | count   |
| Eval/AverageEpisodeLengths  | the same of the evaluation episodes | steps   |
| Eval/AverageStepsPerSecond  | the same of the evaluation episodes | steps/s |
| Train/GameReturn            | of whole games, where lives end     | reward  |
| Eval/GameReturn             | the same of the evaluation episodes | reward  |
| Train/Loss                  | the loss that is minimized          | -       |
| Train/QMean                 | mean Q-value over batch and actions | reward  |
| Train/QMax                  | highest Q-value of the batch        | reward  |
| Train/Gap                   | what CQL's term is, unweighted      | -       |
| Train/CriticLoss            | of the critics' errors              | -       |
| Train/EncoderLoss           | of what MR.Q's encoder predicts     | -       |
| Train/RewardScale           | mean size of rewards, of MR.Q       | reward  |
| Train/PolicyLoss            | the policy's objective, negated     | -       |
| Train/TemperatureLoss       | above 0 the temperature falls       | -       |
| Train/Temperature           | weight of the entropy               | -       |
| Train/ValueLoss             | half the value's squared error      | -       |
| Train/ValueMean             | mean value of the states seen       | reward  |
| Train/Entropy               | of the policy                       | nats    |
| Train/KL                    | divergence of acting and new policy | nats    |
| Train/ClipFraction          | samples whose ratio is clipped      | 0 to 1  |
| Train/GradientSteps         | gradient steps of an update         | count   |
| Train/Epsilon               | chance of a random action           | 0 to 1  |
| Train/GradientNorm          | global L2 norm, before any clipping | -       |
| Train/ParameterNorm         | global L2 norm of the parameters    | -       |
| Train/Updates               | updates of the parameters so far    | count   |
| Replay/Fill                 | part of the ring that is in use     | 0 to 1  |
| System/MemoryGB             | peak resident memory of the process | GB      |
| Health/DormantNeurons       | part of the neurons that hardly act | 0 to 1  |
| Health/EffectiveRank        | directions that the features use    | count   |
| Health/ParameterDrift       | L2 distance to the target network   | -       |
| Health/ValueDrift           | mean distance of the two's values   | reward  |
| Health/PriorityQuantile0.5  | median of p^alpha in the replay     | -       |

Returns and lengths are of episodes that ended by themselves in the iteration:
an episode that a checkpoint cut short isn't counted. Returns are undiscounted
sums of raw rewards, whatever `reward_clip` the learning sees. Loss, Q-values
and norms are means over the iteration's updates, and, where an update takes
several gradient steps, over these. A loss scaled by `normalize_rewards`, and
values with it, are in units of that scale.

Health is measured where `runner.Runner.health` asks for it (see `health`), of
what an iteration has ended with, on transitions from the replay, or from the
newest rollout. There are no such rows before the replay holds its
`min_history`. SAC has several networks, so that its tags say which:
Health/ActorDormantNeurons, Health/CriticsDormantNeurons and so on; its actor
has no target network, and no drift. PPO and PQN have neither target networks
nor priorities. Quantiles of priorities are those that `PriorityQuantiles`
names.

Whole games are told of Atari with `terminate_on_life_loss`. What else an
environment tells when an episode ends (`gym.Gym.info`, `native.Native.info`)
has its own name: Train/is_success, Eval/is_success. The mean is over the
episodes of which something was told.

In TensorBoard alone are Interval/.../low and Interval/.../high, the 95%
interval of several seeds' mean return; and with `runner.Runner.histograms` and
`runner.Runner.videos` also Parameters/..., how each array of parameters is
spread, and Eval/Video, an episode of the first seed's agent.

`base.is_timing` tells the tags that depend on clock and machine from those
that a second run of the same seed repeats to the bit.
"""
