"""What an agent sees and means to do, as pictures: read `camera` first.

`panel` draws what stands beside the frames, `videos` the films of a training.
"""
