"""Playing with what was learned of games: players, search, matches, a terminal, UCI, self-play."""
