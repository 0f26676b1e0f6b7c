"""Models: one family a file, each with a frozen ``Config`` and an ``nn.Module`` it builds."""
