//! What a filter asks the router to copy into its memory.

/// How much of each payload the router copies for the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadNeed {
    /// Nothing; [`crate::EventView::payload_part`] can still ask for it.
    None,
    /// The first bytes, at most this many.
    Prefix(u32),
    /// All of it.
    Full,
}

impl PayloadNeed {
    /// The larger of two.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Full, _) | (_, Self::Full) => Self::Full,
            (Self::None, need) | (need, Self::None) => need,
            (Self::Prefix(left), Self::Prefix(right)) => Self::Prefix(if left > right { left } else { right }),
        }
    }
}

/// What the router copies into the filter for each event. What is not asked for costs nothing.
///
/// Written with [`crate::needs!`]: `needs!(headers["x-tenant"], payload)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Names of the headers that the filter reads by index with [`crate::EventView::header`].
    pub headers: &'static [&'static str],
    /// All attributes: the event's key, type, content type and every header. Naming a header implies it.
    pub attributes: bool,
    /// The publisher's identity.
    pub identity: bool,
    /// How much of the payload.
    pub payload: PayloadNeed,
}

impl Needs {
    /// Only the topic.
    pub const NOTHING: Self = Self { headers: &[], attributes: false, identity: false, payload: PayloadNeed::None };

    /// The same with the `headers`.
    #[must_use]
    pub const fn headers(self, headers: &'static [&'static str]) -> Self {
        Self { headers, ..self }
    }

    /// The same with all attributes.
    #[must_use]
    pub const fn attributes(self) -> Self {
        Self { attributes: true, ..self }
    }

    /// The same with the publisher's identity.
    #[must_use]
    pub const fn identity(self) -> Self {
        Self { identity: true, ..self }
    }

    /// The same with so much of the `payload`.
    #[must_use]
    pub const fn payload(self, payload: PayloadNeed) -> Self {
        Self { payload, ..self }
    }

    /// What either of two needs. The headers are those of the first.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            headers: self.headers,
            attributes: self.attributes || other.has_attributes(),
            identity: self.identity || other.identity,
            payload: self.payload.or(other.payload),
        }
    }

    /// Whether the attribute block is copied.
    pub const fn has_attributes(&self) -> bool {
        self.attributes || !self.headers.is_empty()
    }
}

impl Default for Needs {
    fn default() -> Self {
        Self::NOTHING
    }
}
