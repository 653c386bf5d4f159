"""Do a concept's experts tell its sentences from others, in new text, and does anything else do it better?"""
