"""The parts of ``--to keras``: our modules as layers of Keras, and TensorFlow's process."""
