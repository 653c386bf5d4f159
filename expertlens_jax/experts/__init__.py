"""From responses to experts: recording, ranking, selecting, comparing."""
