"""stages: the steps of one compile, artifact to artifact, each in a file of its own.

They join the rooms together and so may import all of them; `pipeline` runs them in order. A stage prints nothing: what
it has to say goes to the job's `Progress`, what it found goes into the report's record.
"""
